"""One step of Adam, whatever is round it: mixed precision, micro-batches, several processes."""

from contextlib import contextmanager

import paddle

from shared_metrics import process
from shared_metrics.runs import checkpoint

AMP = {"fp16": "float16", "bf16": "bfloat16"}


class Update:
    """One network's (or several networks') step of Adam: gradients in parts, then the step.

        for part in update.parts(len(x)):                # one part unless micro_batch is set
            with update.autocast():
                loss = ...
            update.backward(loss, d_loss=loss)
        logs = update.step()

    Args:
        networks: a Layer, or {name: Layer} whose weights are trained together; all processes begin
            with those of the first.
        rate: learning rate; beta1, beta2, epsilon: Adam's.
        amp: "none", "fp16" or "bf16", mixed precision on GPUs.
        micro_batch: images that pass at a time (0: all); gradients add up to those of the batch.
    Attributes: parameters, the trained ones; share, of the batch that the part at hand is: 1 for
        a whole batch, and what a sum over the batch (not a mean) has to be divided by.
    """

    def __init__(self, networks, rate, beta1, beta2, epsilon=1e-8, amp="none", micro_batch=0):
        several = isinstance(networks, dict)
        self.networks = paddle.nn.LayerDict(networks) if several else networks
        process.broadcast_layers(self.networks)
        # BatchNorm's running statistics are listed among the parameters, without gradients.
        self.parameters = [p for p in self.networks.parameters() if not p.stop_gradient]
        self.optimizer = paddle.optimizer.Adam(
            rate, beta1=beta1, beta2=beta2, epsilon=epsilon, parameters=self.parameters
        )
        self.amp = amp
        self.scaler = paddle.amp.GradScaler(enable=amp == "fp16")
        self.micro_batch = micro_batch
        self.share = 1.0
        self._begun = False
        self._logs = {}

    def parts(self, number):
        """Slices that divide a batch of `number` images into micro-batches."""
        size = self.micro_batch or number
        for start in range(0, number, size):
            part = slice(start, min(start + size, number))
            self.share = (part.stop - part.start) / number
            yield part
        self.share = 1.0

    def autocast(self):
        """Context in which Paddle computes in the precision of `amp`; nothing with "none"."""
        dtype = AMP.get(self.amp, "float16")
        return paddle.amp.auto_cast(enable=self.amp != "none", dtype=dtype, level="O1")

    def backward(self, loss, /, **logs):
        """Add the gradients of a loss, the mean over the part at hand, to those of this step.

        logs: name=0-d tensor to be logged, likewise averaged over the parts.
        """
        if not self._begun:  # only now: other networks' losses may have left gradients here
            self.optimizer.clear_grad()
            self._logs = {}
            self._begun = True
        self.scaler.scale(loss * self.share).backward()
        for name, value in logs.items():
            value = value.detach().astype("float32") * self.share
            self._logs[name] = self._logs[name] + value if name in self._logs else value

    def step(self):
        """Average the gradients over all processes and take Adam's step. Returns: the logs."""
        process.average_gradients(self.parameters)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._begun = False
        return self._logs

    @contextmanager
    def frozen(self):
        """Context in which these weights get no gradients: what passes through them still does."""
        for parameter in self.parameters:
            parameter.stop_gradient = True
        try:
            yield
        finally:
            for parameter in self.parameters:
                parameter.stop_gradient = False

    def set_rate(self, rate):
        """Set Adam's learning rate from the next step on."""
        self.optimizer.set_lr(rate)

    def load(self, optimizer, scaler, source):
        """Take over what a checkpoint holds: see `checkpoint.load_optimizer_state`."""
        checkpoint.load_optimizer_state(self.optimizer, self.networks, optimizer, source=source)
        if scaler:  # empty without fp16
            self.scaler.load_state_dict(scaler)
