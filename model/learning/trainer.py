"""The training loop's arithmetic: batches in, better weights out. Files and workers are elsewhere."""

import contextlib
import importlib.util
import logging
import math
from dataclasses import dataclass

import torch

from model.checkpoint import Weights, build
from model.errors import CheckpointError, DivergedError
from model.learning.losses import Spectra, cross_entropy, magnitude_l1, mask_loss
from model.preset import Preset
from model.separation.arithmetic import resolved_precision
from model.separation.stream import Separator
from model.spectra.frontend import analysis

log = logging.getLogger("unbraid.train")

# Compiling takes about a minute, which a training of fewer steps does not win back.
_COMPILED_STEPS = 3000
_TRITON_CAPABILITY = (7, 0)


@dataclass(frozen=True)
class Batch:
    """Examples of a preset's length.

    stems: waveforms float32 (batch, stems, channels, samples) in the preset's order, or their spectra
    complex64 (batch, stems, channels, frames, bins). bandwidth: (batch,) in Hz, where content ends.
    """

    stems: torch.Tensor
    bandwidth: torch.Tensor


class Trainer:
    """Network, optimiser and moving average, advanced step by step.

    The moving average of the weights (Polyak) is what is validated and shipped; the raw weights only
    move it.

    Args:
        preset: The network, the training's settings and what the network sees.
        seed: Of the first weights and of dropout.
        device: Where the network is trained, "cpu" or "cuda".
        precision: One of `model.separation.arithmetic.TRAINING_PRECISIONS`.
        compiler: Backend of `torch.compile` for the network, "" for none, "auto" for the usual one where it pays: on a
            GPU that Triton writes kernels for, in a training of some length.

    Attributes:
        step: Steps done.
        gradient_norm: Norm of the last step's gradient before it was clipped; NaN before the first step.
    """

    def __init__(
        self, preset: Preset, *, seed: int = 0, device: str = "cpu", precision: str = "auto", compiler: str = "auto"
    ) -> None:
        torch.manual_seed(seed)
        self.preset = preset
        self.settings = preset.training
        self.device = torch.device(device)
        self.precision = resolved_precision(precision, self.device)
        self.network = build(preset).to(self.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.average = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(),
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
            fused=True,
        )
        if compiler == "auto":
            compiler = "inductor" if self.settings.steps >= _COMPILED_STEPS and _has_triton(self.device) else ""
        # Shares the network's parameters; saved and restored is the network alone.
        self._compiled = torch.compile(self.network, backend=compiler) if compiler else None
        self.seed = seed
        self.step = 0
        self.gradient_norm = math.nan

    def train(self, batch: Batch) -> float:
        """One step of gradient descent.

        Args:
            batch: The examples to learn from.

        Returns:
            The loss before the step.

        Raises:
            DivergedError: The loss or its gradient is not finite; the weights are as before.
        """
        # Dropout draws from here: the same step draws the same numbers, also after a resume.
        torch.manual_seed(self.seed * 1_000_003 + self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate(self.step)
        with self._fastest_kernels():
            return self._step(batch)

    def _step(self, batch: Batch) -> float:
        spectra, band = self._spectra(batch)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            masks = self._masks(spectra.seen)
        if self.settings.loss == "magnitude_l1":
            loss = magnitude_l1(masks, spectra)
        elif self.settings.loss == "cross_entropy":
            loss = cross_entropy(masks, spectra, band)
        else:
            loss = mask_loss(masks, spectra, band, squared=self.settings.loss == "mask_squared")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        value, gradient = float(loss.detach()), float(norm)
        if not (math.isfinite(value) and math.isfinite(gradient)):
            raise DivergedError(
                f"the loss was not finite at step {self.step + 1} (loss {value}, gradient {gradient}): the learning "
                "rate may be too high, or a stem may hold NaN"
            )
        self.gradient_norm = gradient
        self.optimiser.step()
        self.step += 1
        follow(self.average, self.network, self.settings.ema, self.step)
        return value

    def start_from(self, weights: Weights) -> int:
        """Take over the tensors of another model that fit this network by name and shape; the rest stays as drawn.

        A network with a method `adapted` is asked first what it makes of them.

        Args:
            weights: The other model, of any preset.

        Returns:
            How many tensors were taken over.

        Raises:
            CheckpointError: None fits.
        """
        state = self.network.state_dict()
        adapted = getattr(self.network, "adapted", lambda tensors: tensors)
        fitting = {
            name: tensor
            for name, tensor in adapted(weights.tensors).items()
            if name in state and state[name].shape == tensor.shape
        }
        if not fitting:
            raise CheckpointError(
                f"a model of preset {weights.preset.name} has no weights that {self.preset.name} can use"
            )
        for name, tensor in fitting.items():
            state[name].copy_(tensor)
        self.average = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        return len(fitting)

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then constant or a cosine to a hundredth.

        Args:
            step: Steps done before the one that is to take this rate, from 0.
        """
        settings = self.settings
        if settings.schedule == "constant" and step >= settings.warmup:
            return settings.learning_rate
        return cosine_rate(settings.learning_rate, step, warmup=settings.warmup, steps=settings.steps)

    def separator(self) -> Separator:
        """A separator with the averaged weights as they are now."""
        network = build(self.preset)
        network.load_state_dict(self.average)
        return Separator(
            self.preset,
            network.to(memory_format=torch.channels_last),  # type: ignore[call-overload]
            device=str(self.device),
            precision=self.precision,
        )

    def state(self) -> tuple[dict[str, torch.Tensor], dict]:
        """Everything a resume needs, as tensors and plain values."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        optimiser = self.optimiser.state_dict()
        for index, slots in optimiser["state"].items():
            tensors |= {f"optimiser.{index}.{slot}": torch.as_tensor(value) for slot, value in slots.items()}
        return tensors, {"step": self.step, "seed": self.seed}

    def restore(self, tensors: dict[str, torch.Tensor], values: dict) -> None:
        """Go on from `state()`.

        Args:
            tensors: The tensors of `state()`, in any memory format: a file keeps none.
            values: Its plain values.
        """
        parts: dict[str, dict] = {"network": {}, "average": {}}
        slots: dict[int, dict] = {}
        parameters = list(self.network.parameters())
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "optimiser":
                index, slot = rest.split(".")
                slots.setdefault(int(index), {})[slot] = _laid_out_as(parameters[int(index)], tensor)
            else:
                parts[kind][rest] = tensor.to(self.device)
        self.network.load_state_dict(parts["network"])
        self.average = parts["average"]
        state = self.optimiser.state_dict()
        state["state"] = slots
        self.optimiser.load_state_dict(state)
        self.step, self.seed = values["step"], values["seed"]

    def _masks(self, seen: torch.Tensor) -> torch.Tensor:
        """The network's masks, by its compiled form as long as that works."""
        if self._compiled is not None:
            from torch._dynamo.exc import TorchDynamoException  # takes a second

            try:
                return self._compiled(seen)
            except TorchDynamoException as error:
                log.warning("the network cannot be compiled (%s); it goes on as it is", str(error).partition("\n")[0])
                self._compiled = None
        return self.network(seen)

    def _fastest_kernels(self) -> contextlib.AbstractContextManager:
        """On a GPU cuDNN tries its algorithms for each shape, of which a training has one, and may use TF32."""
        if self.device.type != "cuda":
            return contextlib.nullcontext()
        return torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=True)

    @torch.no_grad()
    def _spectra(self, batch: Batch) -> tuple[Spectra, torch.Tensor]:
        """The batch's magnitudes, and its band (batch, 1, bins, 1)."""
        preset = self.preset
        stems = batch.stems.to(self.device, non_blocking=True)
        if not stems.is_complex():
            stems = analysis(stems, preset.n_fft, preset.hop)
        hertz = torch.arange(preset.bins, device=self.device) * preset.sample_rate / preset.n_fft
        band = (hertz <= batch.bandwidth.to(self.device)[:, None]).float()[:, None, :, None]
        return Spectra.of(stems[..., : preset.bins], masks=preset.masks, mid_side=preset.mid_side), band


def cosine_rate(rate: float, step: int, *, warmup: int, steps: int) -> float:
    """A learning rate that rises linearly over the warm-up and falls as a cosine to a hundredth.

    Args:
        rate: The highest.
        step: Steps done before the one that is to take it, from 0.
        warmup: Steps over which it rises.
        steps: All steps.
    """
    if step < warmup:
        return rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


@torch.no_grad()
def follow(average: dict[str, torch.Tensor], network: torch.nn.Module, ema: float, step: int) -> None:
    """Move the average of a network's weights towards them.

    Args:
        average: The average, a state dict; it is changed.
        network: The network.
        ema: The average's decay.
        step: Steps done; early on the average would remember the start, so it forgets faster then.
    """
    decay = min(ema, (1 + step) / (10 + step))
    values = network.state_dict()
    moving = [name for name, value in values.items() if value.is_floating_point()]
    # All at once: on a GPU one launch and not a hundred.
    torch._foreach_lerp_([average[name] for name in moving], [values[name] for name in moving], 1 - decay)
    for name in values.keys() - set(moving):
        average[name].copy_(values[name])


def _has_triton(device: torch.device) -> bool:
    """Whether `torch.compile` writes kernels for a device by Triton."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device) >= _TRITON_CAPABILITY


def _laid_out_as(parameter: torch.Tensor, slot: torch.Tensor) -> torch.Tensor:
    """A slot of the optimiser in the memory format of its parameter.

    The fused AdamW walks through the memory of both side by side and ignores strides.
    """
    return torch.empty_like(parameter).copy_(slot) if slot.shape == parameter.shape else slot
