"""The commands of classic_gans/README.md, each on what those before it have left."""
