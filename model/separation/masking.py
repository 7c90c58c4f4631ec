"""Masks of a file's frames: what the network sees of the file, and what its masks mean for every bin."""

from dataclasses import dataclass

import torch

from model.errors import ModelError
from model.preset import Preset

# Above the network's band the mask goes on with its mean over this share of the band's top.
_EXTENSION_SHARE = 0.25


class Masker:
    """A network in use: magnitudes of segments in, masks of their frames out, whatever else is in the batch.

    Args:
        preset: The network's input and output, and how segments are laid out.
        network: The network; its batch norms are folded into its convolutions, so it can no longer be trained.
        device: Where its arithmetic runs.
        precision: "int8", "bfloat16" or "float32".
    """

    def __init__(self, preset: Preset, network: torch.nn.Module, device: torch.device, precision: str) -> None:
        self._preset = preset
        self._device = device
        self._precision = precision
        self._network = network.to(device).eval()
        if precision == "int8":
            network.quantise()  # type: ignore[operator]
        elif (fuse := getattr(network, "fuse", None)) is not None:
            fuse(torch.bfloat16 if precision == "bfloat16" else torch.float32)

    @torch.inference_mode()
    def masks(self, magnitudes: list[torch.Tensor], channels: int, batch: int) -> list[torch.Tensor]:
        """Masks for the frames of several segments of one file.

        Args:
            magnitudes: Per segment what `model.spectra.frontend.magnitudes` makes of its spectrum, (seen channels,
                context + frames + context, bins), zero outside the file.
            channels: How many channels the file has.
            batch: How many items a GPU takes through the network together. A CPU is as fast with one, and its
                kernels for several sum up in another order: it always takes one, so that no bit depends on it.

        Returns:
            Per segment the masks (estimated stems, channels, frames, bins).
        """
        views = _channel_views(channels, self._preset)
        step, context = self._preset.interleave, self._preset.inference.context_frames
        inputs = [self._filled(_fit(magnitude, self._preset.bins)) for magnitude in magnitudes]
        items = [
            _rows(segment, view.seen)[:, phase::step].transpose(-1, -2)
            for segment in inputs
            for view in views
            for phase in range(step)
        ]
        outputs = [_frames_first(output) for output in self._forward(items, batch)]
        masks = []
        for magnitude in magnitudes:
            frames = magnitude.shape[1] - 2 * context * step
            phases = [outputs.pop(0)[..., context:, :] for _ in range(len(views) * step)]
            # (views · phases, stems, view channels, frames of a phase, bins) → frames in order
            given = (torch.stack(phases) if len(phases) > 1 else phases[0][None]).unflatten(0, (len(views), step))
            given = given.permute(0, 2, 3, 4, 1, 5).flatten(3, 4)[:, :, :, :frames]
            masks.append(_extend(_of_file(given, views, channels), magnitude.shape[2]))
        return masks

    @torch.inference_mode()
    def together(self, magnitudes: torch.Tensor, channels: int) -> torch.Tensor:
        """Masks for the frames of several segments of one shape, which take the network at once and stay on the device.

        Args:
            magnitudes: (segments, seen channels, frames, bins) on the device; `frames` is a length that `filled`
                returns, context on either side included.
            channels: How many channels the files have.

        Returns:
            The masks (segments, estimated stems, channels, frames − 2 · context, bins).
        """
        views = _channel_views(channels, self._preset)
        step, context = self._preset.interleave, self._preset.inference.context_frames
        inputs = _fit(magnitudes, self._preset.bins)
        items = [
            _rows(inputs, view.seen)[:, :, phase::step].transpose(-1, -2) for view in views for phase in range(step)
        ]
        outputs = self._outputs(items[0] if len(items) == 1 else torch.stack(items, dim=1).flatten(0, 1))
        frames = magnitudes.shape[2] - 2 * context * step
        given = outputs[..., context:].unflatten(0, (len(magnitudes), len(views), step))
        # (segments, views, phases, stems, view channels, bins, frames of a phase) → views first, frames in order
        given = given.permute(1, 0, 3, 4, 6, 2, 5).flatten(4, 5)[..., :frames, :]
        return _extend(_of_file(given, views, channels), magnitudes.shape[3])

    def filled(self, frames: int) -> int:
        """The length that the network takes for so many frames, the rest of which is silence.

        A short segment (a short file, or the end of a long one) is filled to the next length that fits, not to a full
        segment's: silence costs time, and would lower the mean that networks divide by. One rule for all batches.

        Args:
            frames: Frames of a segment with its context on either side.
        """
        inference, step = self._preset.inference, self._preset.interleave
        full = (inference.core_frames + 2 * inference.context_frames) * step
        multiple = getattr(self._network, "multiple", 0) * step
        return min(full, -(-frames // multiple) * multiple) if multiple else full

    def _filled(self, magnitude: torch.Tensor) -> torch.Tensor:
        """A segment with zeros at its end, up to a length that the network takes."""
        return padded(magnitude, (0, 0, 0, self.filled(magnitude.shape[1]) - magnitude.shape[1]))

    def _forward(self, items: list[torch.Tensor], batch: int) -> list[torch.Tensor]:
        """Network outputs of the items, in their order; items of one length that follow each other go together."""
        batch = batch if self._device.type != "cpu" else 1
        outputs: list[torch.Tensor] = []
        while len(outputs) < len(items):
            start = len(outputs)
            stop = start + 1
            while stop < min(start + batch, len(items)) and items[stop].shape == items[start].shape:
                stop += 1
            alone = stop == start + 1
            together = (items[start][None] if alone else torch.stack(items[start:stop])).to(self._device)
            outputs += self._outputs(together).cpu()
        return outputs

    def _outputs(self, together: torch.Tensor) -> torch.Tensor:
        """The network's masks of the stems it estimates, float32 and where the network is.

        Raises:
            ModelError: The network gives masks of another shape.
        """
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._precision == "bfloat16"):
            masks = self._network(together)
        preset = self._preset
        stems, channels = len(preset.estimated), preset.channels
        fits = masks.dim() == together.dim() + 1 and masks.shape[3:] == together.shape[2:]
        if not fits or masks.shape[1] < stems or masks.shape[2] < channels:
            raise ModelError(
                f"the network of preset {preset.name} gives masks of shape {tuple(masks.shape)}, where {stems} stems, "
                f"{channels} channels, {together.shape[2]} bins and {together.shape[3]} frames are needed"
            )
        return masks[:, :stems].float()


@dataclass(frozen=True)
class _ChannelView:
    """Which rows of the seen magnitudes enter the network together, and for which channels of the file."""

    seen: tuple[int, ...]
    file: tuple[int, ...]


def _channel_views(channels: int, preset: Preset) -> list[_ChannelView]:
    """Pairs of channels where there are two, else each by itself, in the middle of a pair."""
    width, sides = preset.channels, (2, 3) if preset.mid_side else ()
    if channels == width:
        every = tuple(range(channels))
        return [_ChannelView(every + sides, every)]
    # Its mid is the channel itself; its side is the row of zeros that follows the channels.
    return [
        _ChannelView((channel,) * width + ((channel, channels) if preset.mid_side else ()), (channel,) * width)
        for channel in range(channels)
    ]


def _of_file(masks: torch.Tensor, views: list[_ChannelView], channels: int) -> torch.Tensor:
    """Masks of views (views, …, stems, view channels, frames, bins) as the file's (…, stems, channels, frames, bins).

    A channel that several views give a mask for takes their mean.
    """
    if len(views) == 1 and views[0].file == tuple(range(channels)):
        return masks[0][..., :channels, :, :]
    given = [
        [
            masks[index][..., row, :, :]
            for index, view in enumerate(views)
            for row, of in enumerate(view.file)
            if of == channel
        ]
        for channel in range(channels)
    ]
    return torch.stack([torch.stack(masks_of_channel).mean(0) for masks_of_channel in given], dim=-3)


def _frames_first(masks: torch.Tensor) -> torch.Tensor:
    """(stems, channels, bins, frames) as (stems, channels, frames, bins), contiguous.

    Where the memory has another order, it is turned over matrix by matrix, which torch does in blocks.
    """
    if masks.transpose(-1, -2).is_contiguous():
        return masks.transpose(-1, -2)
    out = masks.new_empty(*masks.shape[:2], masks.shape[3], masks.shape[2])
    for turned, mask in zip(out.flatten(0, 1), masks.flatten(0, 1), strict=True):
        turned.copy_(mask.t())
    return out


def _fit(magnitude: torch.Tensor, bins: int) -> torch.Tensor:
    """Cut or zero-pad the frequency axis to the network's."""
    return padded(magnitude, (0, bins - magnitude.shape[-1]))


def padded(x: torch.Tensor, amounts: tuple[int, ...]) -> torch.Tensor:
    """`torch.nn.functional.pad` without its copy where there is nothing to pad or cut.

    Args:
        x: A tensor of any shape.
        amounts: Zeros before and after each axis, the last axis first, as `pad` takes them; negative ones cut.

    Returns:
        The padded tensor; `x` itself where all amounts are 0.
    """
    return torch.nn.functional.pad(x, amounts) if any(amounts) else x


def _rows(segments: torch.Tensor, chosen: tuple[int, ...]) -> torch.Tensor:
    """Some channels of segments (…, channels, frames, bins), without a copy where they are all of them in order."""
    return segments if chosen == tuple(range(segments.shape[-3])) else segments[..., list(chosen), :, :]


def _extend(masks: torch.Tensor, bins: int) -> torch.Tensor:
    """Masks for all bins of the file: cut, or continued by the mean over the top of the network's band."""
    known = masks.shape[-1]
    if bins <= known:
        return masks[..., :bins]
    top = masks[..., known - round(known * _EXTENSION_SHARE) :].mean(-1, keepdim=True)
    return torch.cat([masks, top.expand(*masks.shape[:-1], bins - known)], dim=-1)
