"""Plain twins in torch of networks of this repository, for `benchmark.py --torch PYTHON`.

    PYTHON scripts/torch_twins.py train JSON     iterations a second of SAGAN's training
    PYTHON scripts/torch_twins.py draw JSON      pictures a second of a generator

JSON is what `benchmark.py` asks for: fields of a paper's Architecture with the sizes of the
measurement. Printed is a JSON object {"speed": a second, "parameters": of each network}. Only torch
is needed, in any environment. The networks have the layers and sizes of the paper's model.py,
written as one writes them in torch, with random weights.
"""

import json
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import spectral_norm

G_WIDTHS = {32: (4, 4, 4, 4), 64: (16, 8, 4, 2, 1), 128: (16, 16, 8, 4, 2, 1)}
D_WIDTHS = {32: (2, 2, 2, 2), 64: (1, 2, 4, 8, 16), 128: (1, 2, 4, 8, 16, 16)}
NO_TWIN = 3  # exit code
D_HALVINGS = {32: 2, 64: 4, 128: 5}


def count(network):
    """Its trained numbers."""
    return sum(p.numel() for p in network.parameters())


def upsample(x):
    return F.interpolate(x, scale_factor=2, mode="nearest")


# ---- SAGAN (sagan/model.py) ----


def sn_conv(i, o, k, bias=True):
    return spectral_norm(nn.Conv2d(i, o, k, padding=k // 2, bias=bias))


class SelfAttention(nn.Module):
    """x (N, C, H, W) -> x + gamma attention(x), keys and values pooled 2x2."""

    def __init__(self, C, bias):
        super().__init__()
        self.theta = sn_conv(C, C // 8, 1, bias)
        self.phi = sn_conv(C, C // 8, 1, bias)
        self.g = sn_conv(C, C // 2, 1, bias)
        self.attn = sn_conv(C // 2, C, 1, bias)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        N, C, H, W = x.shape
        theta = self.theta(x).view(N, C // 8, H * W)
        phi = F.max_pool2d(self.phi(x), 2).view(N, C // 8, H * W // 4)
        g = F.max_pool2d(self.g(x), 2).view(N, C // 2, H * W // 4)
        beta = F.softmax(torch.bmm(theta.transpose(1, 2), phi), dim=-1)
        o = torch.bmm(g, beta.transpose(1, 2)).view(N, C // 2, H, W)
        return x + self.gamma * self.attn(o)


class ConditionalBatchNorm(nn.Module):
    """BatchNorm, then (1 + gain[y]) x + bias[y], or gamma[y] x + beta[y] of one table."""

    def __init__(self, C, arch):
        super().__init__()
        self.bn = nn.BatchNorm2d(C, eps=arch["bn_eps"], affine=False)
        wrap = spectral_norm if arch["cbn_spectral"] else lambda layer: layer
        self.one_plus = arch["cbn"] == "one_plus"
        if self.one_plus:
            self.gain = wrap(nn.Embedding(arch["num_classes"], C))
            self.bias = wrap(nn.Embedding(arch["num_classes"], C))
        else:
            self.embed = nn.Embedding(arch["num_classes"], 2 * C)

    def forward(self, x, y):
        if self.one_plus:
            gamma = 1 + self.gain(y)
            beta = self.bias(y)
        else:
            gamma, beta = self.embed(y).chunk(2, 1)
        return self.bn(x) * gamma[:, :, None, None] + beta[:, :, None, None]


class GenBlock(nn.Module):
    """(N, i, H, W) -> (N, o, 2H, 2W)."""

    def __init__(self, i, o, arch):
        super().__init__()
        self.bn1 = ConditionalBatchNorm(i, arch)
        self.conv1 = sn_conv(i, o, 3)
        self.bn2 = ConditionalBatchNorm(o, arch)
        self.conv2 = sn_conv(o, o, 3)
        self.conv0 = sn_conv(i, o, 1)

    def forward(self, x, y):
        h = self.conv1(upsample(F.relu(self.bn1(x, y))))
        return self.conv2(F.relu(self.bn2(h, y))) + upsample(self.conv0(x))


class DiscBlock(nn.Module):
    """(N, i, H, W) -> (N, o, H/2, W/2), or (N, o, H, W) if not `down`."""

    def __init__(self, i, o, down, first):
        super().__init__()
        self.down = down
        self.first = first
        self.conv1 = sn_conv(i, o, 3)
        self.conv2 = sn_conv(o, o, 3)
        self.conv0 = sn_conv(i, o, 1) if down or i != o else None

    def forward(self, x):
        h = x if self.first else F.relu(x)
        h = self.conv2(F.relu(self.conv1(h)))
        if self.down:
            h = F.avg_pool2d(h, 2)
            x = F.avg_pool2d(x, 2)
        return h + (self.conv0(x) if self.conv0 else x)


class SaganG(nn.Module):
    """z (N, z_dim), y (N,) -> images (N, 3, S, S)."""

    def __init__(self, arch):
        super().__init__()
        widths = [arch["g_conv_dim"] * times for times in G_WIDTHS[arch["imsize"]]]
        self.linear = spectral_norm(nn.Linear(arch["z_dim"], widths[0] * 16))
        self.blocks = nn.ModuleList()
        side = 4
        for i, o in zip(widths, widths[1:], strict=False):
            side *= 2
            self.blocks.append(GenBlock(i, o, arch))
            if side in arch["g_attention"]:
                self.blocks.append(SelfAttention(o, arch["attention_bias"]))
        self.bn = nn.BatchNorm2d(o, eps=arch["bn_eps"])
        self.conv = sn_conv(o, 3, 3)

    def forward(self, z, y):
        h = self.linear(z).view(len(z), -1, 4, 4)
        for block in self.blocks:
            h = block(h, y) if isinstance(block, GenBlock) else block(h)
        return torch.tanh(self.conv(F.relu(self.bn(h))))


class SaganD(nn.Module):
    """Images (N, 3, S, S), y (N,) -> logits (N,)."""

    def __init__(self, arch):
        super().__init__()
        self.blocks = nn.ModuleList()
        i = 3
        side = arch["imsize"]
        attends = set(arch["d_attention"])
        for n, times in enumerate(D_WIDTHS[arch["imsize"]]):
            o = arch["d_conv_dim"] * times
            down = n < D_HALVINGS[arch["imsize"]]
            side = side // 2 if down else side
            self.blocks.append(DiscBlock(i, o, down, first=n == 0))
            if side in attends:
                attends.remove(side)  # after the first block of its side only
                self.blocks.append(SelfAttention(o, arch["attention_bias"]))
            i = o
        self.linear = spectral_norm(nn.Linear(o, 1))
        self.embedding = spectral_norm(nn.Embedding(arch["num_classes"], o))

    def forward(self, x, y):
        for block in self.blocks:
            x = block(x)
        h = F.relu(x).sum([2, 3])
        return self.linear(h).squeeze(1) + (self.embedding(y) * h).sum(1)


class SaganStep:
    """One iteration: `d_steps` updates of D, one of G; hinge loss, Adam."""

    def __init__(self, ask):
        self.ask = ask
        self.G = SaganG(ask)
        self.D = SaganD(ask)
        how = {"lr": 2e-4, "betas": (0.5, 0.999), "eps": 1e-6}
        self.adam_G = torch.optim.Adam(self.G.parameters(), **how)
        self.adam_D = torch.optim.Adam(self.D.parameters(), **how)

    def latents(self):
        N = self.ask["batch_size"]
        z = torch.randn(N, self.ask["z_dim"])
        return z, torch.randint(self.ask["num_classes"], (N,))

    def __call__(self):
        N = self.ask["batch_size"]
        side = self.ask["imsize"]
        for _ in range(self.ask["d_steps"]):
            real = torch.rand(N, 3, side, side) * 2 - 1
            y = torch.randint(self.ask["num_classes"], (N,))
            z, y_fake = self.latents()
            with torch.no_grad():
                fake = self.G(z, y_fake)
            loss = F.relu(1 - self.D(real, y)).mean() + F.relu(1 + self.D(fake, y_fake)).mean()
            self.adam_D.zero_grad()
            loss.backward()
            self.adam_D.step()
        self.D.requires_grad_(False)
        z, y = self.latents()
        loss = -self.D(self.G(z, y), y).mean()
        self.adam_G.zero_grad()
        loss.backward()
        self.adam_G.step()
        self.D.requires_grad_(True)
        return loss.item()


# ---- GauGAN (gaugan_simam/model.py) ----


def simam(x, lam):
    """Source: Yang et al., ICML 2021."""
    d = (x - x.mean([2, 3], keepdim=True)).square()
    v = d.sum([2, 3], keepdim=True) / max(x.shape[2] * x.shape[3] - 1, 1)
    return x * torch.sigmoid(d / (4 * (v + lam)) + 0.5)


class Spade(nn.Module):
    """norm(x) (1 + gamma) + beta, both convolved from the map."""

    def __init__(self, C, arch):
        super().__init__()
        k = arch["spade_side"]
        self.norm = nn.BatchNorm2d(C, affine=False)
        self.shared = nn.Conv2d(arch["semantic_nc"], 128, k, padding=k // 2)
        self.gamma = nn.Conv2d(128, C, k, padding=k // 2)
        self.beta = nn.Conv2d(128, C, k, padding=k // 2)
        self.gelu = arch["variant"] == "photopen"

    def forward(self, x, seg):
        h = self.shared(seg)
        h = F.gelu(h) if self.gelu else F.relu(h)
        return self.norm(x) * (1 + self.gamma(h)) + self.beta(h)


class SpadeBlock(nn.Module):
    """(N, i, H, W) and the map of that side -> (N, o, H, W)."""

    def __init__(self, i, o, arch):
        super().__init__()
        middle = min(i, o)
        self.arch = arch
        self.spade_0 = Spade(i, arch)
        self.conv_0 = sn_conv(i, middle, 3)
        self.spade_1 = Spade(middle, arch)
        self.conv_1 = sn_conv(middle, o, 3)
        self.spade_s = Spade(i, arch) if i != o else None
        self.conv_s = sn_conv(i, o, 1, bias=False) if i != o else None

    def forward(self, x, seg):
        h = self.conv_0(activation(self.spade_0(x, seg), self.arch))
        h = self.conv_1(activation(self.spade_1(h, seg), self.arch))
        h = h + (self.conv_s(self.spade_s(x, seg)) if self.conv_s else x)
        return simam(h, self.arch["simam_lambda"]) if self.arch["simam"] else h


def activation(x, arch):
    return F.gelu(x) if arch["variant"] == "photopen" else F.leaky_relu(x, 0.2)


class GauganG(nn.Module):
    """Semantic map (N, semantic_nc, H, W) -> images (N, 3, H, W)."""

    def __init__(self, arch):
        super().__init__()
        self.arch = arch
        self.fc = nn.Conv2d(arch["semantic_nc"], 16 * arch["ngf"], 3, padding=1)
        self.blocks = nn.ModuleList(SpadeBlock(i, o, arch) for _, i, o, _ in arch["g_blocks"])
        self.conv_img = nn.Conv2d(arch["g_blocks"][-1][2], 3, 3, padding=1)

    def forward(self, seg):
        size = self.arch["start"]
        x = self.fc(F.interpolate(seg, size=size, mode="nearest"))
        for (_, _, _, doubled), block in zip(self.arch["g_blocks"], self.blocks, strict=True):
            x = upsample(x) if doubled else x
            x = block(x, F.interpolate(seg, size=x.shape[2:], mode="nearest"))
        return torch.tanh(self.conv_img(activation(x, self.arch)))


# ---- CycleGAN (classic_gans/cyclegan/model.py) ----


class ResidualBlock(nn.Module):
    """x (N, C, H, W) -> x + two 3x3 convolutions of x."""

    def __init__(self, C):
        super().__init__()
        layers = []
        for last in (False, True):
            layers += [nn.ReflectionPad2d(1), nn.Conv2d(C, C, 3), nn.InstanceNorm2d(C)]
            layers += [] if last else [nn.ReLU(True)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.layers(x)


def cyclegan_g(arch):
    """The ResNet with InstanceNorm: pictures of one domain -> of the other."""
    w = arch["g_base_dims"]
    if arch["norm_type"] != "instance_norm" or arch["legacy"]:
        raise KeyError(arch["norm_type"])
    blocks = {"resnet_6block": 6, "resnet_9block": 9}[arch["net_G"]]
    layers = [nn.ReflectionPad2d(3), nn.Conv2d(arch["input_nc"], w, 7)]
    layers += [nn.InstanceNorm2d(w), nn.ReLU(True)]
    for C in (w, 2 * w):
        layers += [nn.Conv2d(C, 2 * C, 3, 2, 1), nn.InstanceNorm2d(2 * C), nn.ReLU(True)]
    layers += [ResidualBlock(4 * w) for _ in range(blocks)]
    for C in (4 * w, 2 * w):
        layers += [nn.ConvTranspose2d(C, C // 2, 3, 2, 1, output_padding=1)]
        layers += [nn.InstanceNorm2d(C // 2), nn.ReLU(True)]
    layers += [nn.ReflectionPad2d(3), nn.Conv2d(w, arch["output_nc"], 7), nn.Tanh()]
    return nn.Sequential(*layers)


# ---- measurements ----

GENERATORS = {"sagan": SaganG, "gaugan_simam": GauganG, "cyclegan": cyclegan_g}


def train(ask):
    """Args: `iterations` timed ones after one to warm up, of `batch_size`, `d_steps`."""
    step = SaganStep(ask)
    step()
    start = time.perf_counter()
    for _ in range(ask["iterations"]):
        step()
    speed = ask["iterations"] / (time.perf_counter() - start)
    return {"speed": speed, "parameters": [count(step.G), count(step.D)]}


def draw(ask):
    """Args: `paper`; `inputs`, [(shape of a batch, dtype)]; `seconds`. Ends with NO_TWIN where
    there is no such generator here.
    """
    try:
        network = GENERATORS[ask["paper"]](ask).eval()
    except KeyError:
        sys.exit(NO_TWIN)
    inputs = []
    for shape, dtype in ask["inputs"]:
        inputs.append(torch.randn(shape) if "float" in dtype else torch.zeros(shape).long())
    number = ask["inputs"][0][0][0]
    made = 0
    with torch.no_grad():
        network(*inputs)
        start = time.perf_counter()
        while time.perf_counter() < start + ask["seconds"]:
            network(*inputs)
            made += number
    return {"speed": made / (time.perf_counter() - start), "parameters": [count(network)]}


if __name__ == "__main__":
    ask = json.loads(sys.argv[2])
    torch.set_num_threads(ask["threads"])
    print(json.dumps({"train": train, "draw": draw}[sys.argv[1]](ask)))
