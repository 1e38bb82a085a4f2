"""The Inception network of FID: TensorFlow's "inception-2015-12-05" graph.

It differs from torchvision's and `paddle.vision`'s in four ways: BatchNorm epsilon 1e-3; average
pools that leave the padding out of the mean; a max-pool in the last block's pool branch (kept from
the TF graph); 1008 classes. Attribute names are the keys of pytorch-fid's weights file. The
classifier is one matrix (logits = features x W + b), so it is kept out of the network: see
`features.Extractor.logits`.
"""

import paddle
import paddle.nn.functional as F
from paddle import nn

FEATURES = 2048
CLASSES = 1008


class BasicConv2d(nn.Layer):
    """Convolution without bias, BatchNorm (epsilon 1e-3), ReLU."""

    def __init__(self, inputs, outputs, kernel_size, stride=1, padding=0):
        super().__init__()
        # The weights come from a file: draw nothing.
        zeros = paddle.ParamAttr(initializer=nn.initializer.Constant(0.0))
        self.conv = nn.Conv2D(
            inputs,
            outputs,
            kernel_size,
            stride=stride,
            padding=padding,
            weight_attr=zeros,
            bias_attr=False,
        )
        self.bn = nn.BatchNorm2D(outputs, epsilon=1e-3)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class AvgPool(nn.Layer):
    """3x3 mean around every pixel; the padding does not count."""

    def forward(self, x):
        return F.avg_pool2d(x, kernel_size=3, stride=1, padding=1, exclusive=True)


class InceptionA(nn.Layer):
    def __init__(self, inputs, pool):
        super().__init__()
        self.branch1x1 = BasicConv2d(inputs, 64, 1)
        self.branch5x5_1 = BasicConv2d(inputs, 48, 1)
        self.branch5x5_2 = BasicConv2d(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = BasicConv2d(inputs, 64, 1)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3, padding=1)
        self.avg_pool = AvgPool()
        self.branch_pool = BasicConv2d(inputs, pool, 1)

    def forward(self, x):
        a = self.branch1x1(x)
        b = self.branch5x5_2(self.branch5x5_1(x))
        c = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return paddle.concat([a, b, c, self.branch_pool(self.avg_pool(x))], axis=1)


class InceptionB(nn.Layer):
    def __init__(self, inputs):
        super().__init__()
        self.branch3x3 = BasicConv2d(inputs, 384, 3, stride=2)
        self.branch3x3dbl_1 = BasicConv2d(inputs, 64, 1)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3, stride=2)

    def forward(self, x):
        b = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return paddle.concat([self.branch3x3(x), b, F.max_pool2d(x, 3, 2)], axis=1)


class InceptionC(nn.Layer):
    def __init__(self, c):
        super().__init__()
        wide = {"kernel_size": (1, 7), "padding": (0, 3)}
        tall = {"kernel_size": (7, 1), "padding": (3, 0)}
        self.branch1x1 = BasicConv2d(768, 192, 1)
        self.branch7x7_1 = BasicConv2d(768, c, 1)
        self.branch7x7_2 = BasicConv2d(c, c, **wide)
        self.branch7x7_3 = BasicConv2d(c, 192, **tall)
        self.branch7x7dbl_1 = BasicConv2d(768, c, 1)
        self.branch7x7dbl_2 = BasicConv2d(c, c, **tall)
        self.branch7x7dbl_3 = BasicConv2d(c, c, **wide)
        self.branch7x7dbl_4 = BasicConv2d(c, c, **tall)
        self.branch7x7dbl_5 = BasicConv2d(c, 192, **wide)
        self.avg_pool = AvgPool()
        self.branch_pool = BasicConv2d(768, 192, 1)

    def forward(self, x):
        b = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        c = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        c = self.branch7x7dbl_5(self.branch7x7dbl_4(c))
        return paddle.concat([self.branch1x1(x), b, c, self.branch_pool(self.avg_pool(x))], axis=1)


class InceptionD(nn.Layer):
    def __init__(self):
        super().__init__()
        self.branch3x3_1 = BasicConv2d(768, 192, 1)
        self.branch3x3_2 = BasicConv2d(192, 320, 3, stride=2)
        self.branch7x7x3_1 = BasicConv2d(768, 192, 1)
        self.branch7x7x3_2 = BasicConv2d(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = BasicConv2d(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = BasicConv2d(192, 192, 3, stride=2)

    def forward(self, x):
        a = self.branch3x3_2(self.branch3x3_1(x))
        b = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return paddle.concat([a, b, F.max_pool2d(x, 3, 2)], axis=1)


class InceptionE(nn.Layer):
    def __init__(self, inputs, pool):
        super().__init__()
        wide = {"kernel_size": (1, 3), "padding": (0, 1)}
        tall = {"kernel_size": (3, 1), "padding": (1, 0)}
        self.branch1x1 = BasicConv2d(inputs, 320, 1)
        self.branch3x3_1 = BasicConv2d(inputs, 384, 1)
        self.branch3x3_2a = BasicConv2d(384, 384, **wide)
        self.branch3x3_2b = BasicConv2d(384, 384, **tall)
        self.branch3x3dbl_1 = BasicConv2d(inputs, 448, 1)
        self.branch3x3dbl_2 = BasicConv2d(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = BasicConv2d(384, 384, **wide)
        self.branch3x3dbl_3b = BasicConv2d(384, 384, **tall)
        self.pool = pool
        self.branch_pool = BasicConv2d(inputs, 192, 1)

    def forward(self, x):
        b = self.branch3x3_1(x)
        c = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        b = [self.branch3x3_2a(b), self.branch3x3_2b(b)]
        c = [self.branch3x3dbl_3a(c), self.branch3x3dbl_3b(c)]
        return paddle.concat([self.branch1x1(x), *b, *c, self.branch_pool(self.pool(x))], axis=1)


class InceptionV3(nn.Layer):
    """Image (N, 3, 299, 299) float32 in [-1, 1] -> pooled features (N, 2048).

    Built with zero weights, in eval mode. The children run one after another, so a caller who wants
    an inner tap (64, 192, 768 channels) walks `children()`.
    """

    def __init__(self):
        super().__init__()
        # fmt: off
        self.Conv2d_1a_3x3 = BasicConv2d(3, 32, 3, stride=2)    # (N,   32, 149, 149)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, 3)             # (N,   32, 147, 147)
        self.Conv2d_2b_3x3 = BasicConv2d(32, 64, 3, padding=1)  # (N,   64, 147, 147)
        self.maxpool1 = nn.MaxPool2D(3, 2)                      # (N,   64,  73,  73)
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80, 1)             # (N,   80,  73,  73)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, 3)            # (N,  192,  71,  71)
        self.maxpool2 = nn.MaxPool2D(3, 2)                      # (N,  192,  35,  35)
        self.Mixed_5b = InceptionA(192, pool=32)                # (N,  256,  35,  35)
        self.Mixed_5c = InceptionA(256, pool=64)                # (N,  288,  35,  35)
        self.Mixed_5d = InceptionA(288, pool=64)                # (N,  288,  35,  35)
        self.Mixed_6a = InceptionB(288)                         # (N,  768,  17,  17)
        self.Mixed_6b = InceptionC(128)                         # (N,  768,  17,  17)
        self.Mixed_6c = InceptionC(160)                         # (N,  768,  17,  17)
        self.Mixed_6d = InceptionC(160)                         # (N,  768,  17,  17)
        self.Mixed_6e = InceptionC(192)                         # (N,  768,  17,  17)
        self.Mixed_7a = InceptionD()                            # (N, 1280,   8,   8)
        self.Mixed_7b = InceptionE(1280, AvgPool())             # (N, 2048,   8,   8)
        # fmt: on
        # A max-pool in the last block, as the TF graph has it.
        self.Mixed_7c = InceptionE(2048, nn.MaxPool2D(3, 1, padding=1))  # (N, 2048, 8, 8)
        self.eval()

    def forward(self, x):
        for child in self.children():
            x = child(x)
        return paddle.flatten(F.adaptive_avg_pool2d(x, 1), 1)  # (N, 2048)
