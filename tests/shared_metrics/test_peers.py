"""The peers themselves as oracle, where they are installed.

pytorch-fid, torch-fidelity, clean-fid; all need torch.
"""

import importlib
import lzma

import numpy as np
import pytest

from shared_metrics import scores
from shared_metrics.features import Extractor, prepare
from tests.conftest import shared_dir


def peer(name):
    """The module; skips where it, or what it needs, is missing or broken.

    As torchvision is that was built for another torch.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"needs {name}: {error}")


@pytest.fixture(scope="module")
def images():
    return np.random.RandomState(0).randint(0, 256, (6, 45, 70, 3), np.uint8)


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    packed = shared_dir("parity") / "inception" / "inception_random.pth.xz"
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    path.write_bytes(lzma.decompress(packed.read_bytes()))
    return path


@pytest.fixture(scope="module")
def extractor(weights_file):
    return Extractor(weights_file)


def test_pytorch_fid(images, weights_file, extractor, monkeypatch):
    torch = peer("torch")
    theirs = peer("pytorch_fid.inception")

    def load(*_, **__):
        return torch.load(weights_file, map_location="cpu")

    monkeypatch.setattr(theirs, "load_state_dict_from_url", load)
    network = theirs.InceptionV3([3]).eval()
    with torch.no_grad():
        x = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32) / 255)
        expected = network(x)[0][:, :, 0, 0].numpy()
    np.testing.assert_allclose(extractor.features(images, "torch"), expected, atol=1e-3, rtol=0)


def test_torch_fidelity(images, weights_file, extractor):
    torch = peer("torch")
    theirs = peer("torch_fidelity.feature_extractor_inceptionv3")
    names = ["2048", "logits_unbiased"]
    network = theirs.FeatureExtractorInceptionV3(
        "inception", names, feature_extractor_weights_path=str(weights_file)
    )
    x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    with torch.no_grad():
        features, logits = network(x)
    ours = extractor.features(images)
    np.testing.assert_allclose(ours, features.numpy(), atol=1e-3, rtol=0)
    np.testing.assert_allclose(extractor.logits(ours), logits.numpy(), atol=1e-3, rtol=0)


def test_clean_fid_resize(images):
    resize = peer("cleanfid.resize").make_resizer("PIL", False, "bicubic", (299, 299))
    expected = np.stack([resize(image) for image in images])
    ours = prepare(images, "clean") * 128 + 128
    np.testing.assert_allclose(ours, expected.clip(0, 255).transpose(0, 3, 1, 2), atol=1e-3)


def test_scores(images):
    fid_score = peer("pytorch_fid.fid_score")
    draw = np.random.RandomState(1)
    x = draw.rand(300, 40)
    y = draw.rand(280, 40) + 0.1
    moments = x.mean(0), np.cov(x.T), y.mean(0), np.cov(y.T)
    expected = fid_score.calculate_frechet_distance(*moments)
    assert scores.frechet_distance(*moments)["fid"] == pytest.approx(expected, rel=1e-6)
