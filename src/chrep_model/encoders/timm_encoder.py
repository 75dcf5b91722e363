"""Any timm model as an encoder, with its weights.

What an encoder needs to see the tile as it was trained on (size, mean, sd, padding) travels with its weights.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chrep_model.encoders.encoder import Encoder, Precision, SlideState, encoder_id
from chrep_model.encoders.folding import folded
from chrep_model.encoders.torchvision_compat import ensure_torchvision
from chrep_model.errors import BundleError, SettingsError
from chrep_model.slides.tiles import TileSpec


class TimmEncoder(Encoder):
    """Any timm model without its classifier.

    Parameters
    ----------
    name : str
        timm's name of the architecture.
    weights : Path or None
        A local safetensors file; without one the hub's weights are fetched or taken from timm's cache.
    spec : TileSpec
        Tiles; `px` has to be the model's input size.
    device : torch.device
        Where it runs.
    precision : str
        ``"bf16"`` for autocast to it; what comes out is float32 all the same.

    Attributes
    ----------
    model : Module
        timm's model, in eval mode. `embed` reads it; `encode` a form of it that is made at the first call.
    """

    def __init__(
        self,
        name: str,
        weights: Path | None,
        spec: TileSpec,
        device: torch.device,
        precision: Precision = "fp32",
    ) -> None:
        config = timm_config(name, weights)
        self.name, self.spec, self.device, self.precision = name, spec, device, precision
        model, weights_hash = _timm_model(name, weights, config)
        self.model: Any = model.to(device).to(memory_format=torch.channels_last).eval()
        self._config = config
        self._compiled_for = 0
        self._mean = torch.tensor(config["mean"], device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(config["std"], device=device).view(1, 3, 1, 1)
        self._per_grey = (1 / (255 * self._std)).flatten().repeat(spec.px)
        self._of_black = (-self._mean / self._std).flatten().repeat(spec.px)
        # Some have a hidden layer behind the pooling (MobileNet v3, VGG), whose length is what comes out.
        self.dim = int(getattr(self.model, "head_hidden_size", self.model.num_features))
        facts = {k: config[k] for k in ("mean", "std", "model_args")}
        self.id = encoder_id(
            {"encoder": name, "weights": weights_hash, "mpp": spec.mpp, "px": spec.px, **facts}
        )

    @torch.inference_mode()
    def encode(self, tiles: NDArray[np.uint8], state: SlideState) -> NDArray[np.float32]:
        """Tiles (n, px, px, 3) uint8 to pooled features (n, dim) float32."""
        n = len(tiles)
        if n < self._compiled_for:  # another size would be compiled for itself
            tiles = np.concatenate([tiles, np.zeros((self._compiled_for - n, *tiles.shape[1:]), np.uint8)])
        try:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                found = self._for_inference(self.ready(tiles))
        except torch.OutOfMemoryError:
            self._compiled_for = 0  # smaller batches must be smaller
            raise
        out: NDArray[np.float32] = found[:n].float().cpu().numpy()
        return out

    def compile(self, batch_size: int) -> None:
        """See `Encoder.compile`."""
        # Frozen: weights are brought into the order that the processor likes once, not with every batch.
        self._for_inference = torch.compile(self._for_inference, dynamic=False, options={"freezing": True})
        self._compiled_for = batch_size

    @cached_property
    def _for_inference(self) -> Any:
        return folded(self.model)

    def ready(self, tiles: NDArray[np.uint8]) -> Tensor:
        """Tiles (n, px, px, 3) uint8 to what the network reads, (n, 3, px, px) float32 on the device."""
        # A row of pixels is one long axis: three colours at a time keep a processor from its wide registers,
        # and a fast network would wait for this as long as an eighth of its own time.
        rows = self._on_device(tiles).flatten(2).float()
        torch.addcmul(self._of_black, rows, self._per_grey, out=rows)
        return rows.view(tiles.shape).permute(0, 3, 1, 2)

    def pixels(self, tiles: NDArray[np.uint8]) -> Tensor:
        """Tiles (n, px, px, 3) uint8 to (n, 3, px, px) float32 in [0, 1] on the device."""
        return self._on_device(tiles).permute(0, 3, 1, 2).float().div_(255)

    def embed(self, pixels: Tensor) -> Tensor:
        """Pixels (n, 3, px, px) in [0, 1] to pooled features (n, dim); gradients reach the weights."""
        x = (pixels - self._mean).div_(self._std)
        out: Tensor = self.model(x.contiguous(memory_format=torch.channels_last))
        return out

    def _on_device(self, tiles: NDArray[np.uint8]) -> Tensor:
        bytes_ = torch.from_numpy(tiles)
        if self.device.type == "cuda":  # a quarter of what floats would take, and no wait for the copy
            bytes_ = bytes_.pin_memory().to(self.device, non_blocking=True)
        return bytes_.to(self.device)

    def weights_file(self) -> bytes:
        """Content of a safetensors file of the weights as they are now, for `open_encoder` to read.

        It says the preprocessing too; the same weights give the same bytes.
        """
        from safetensors.torch import save

        said = {key: ",".join(map(repr, self._config[key])) for key in ("mean", "std", "input_size")}
        state = {k: v.detach().cpu().contiguous() for k, v in self.model.state_dict().items()}
        return _sorted_header(save(state, said | self._config["model_args"]))


def timm_config(name: str, weights: Path | None) -> dict[str, Any]:
    """Preprocessing and arguments of a timm model: the weights file's own, else timm's for the name.

    A safetensors file may say ``mean``, ``std``, ``input_size`` (comma-separated) and ``pad_type`` in its
    metadata; what it does not say is timm's default for the architecture.
    """
    timm = _timm()
    if name not in timm.list_models() and name.split(".")[0] not in timm.list_models():
        import difflib

        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise SettingsError(
            f"there is no encoder called {name!r}",
            remedy=f"Use 'stainbank' or a timm name{', such as ' + ', '.join(near) if near else ''}.",
        )
    cfg = timm.get_pretrained_cfg(name) or timm.models.PretrainedCfg()
    config: dict[str, Any] = {
        "mean": list(cfg.mean), "std": list(cfg.std), "input_size": list(cfg.input_size), "model_args": {},
        "classifier": cfg.classifier,
    }  # fmt: skip
    for key, value in _metadata(weights).items():
        if key in ("mean", "std"):
            config[key] = [float(v) for v in value.split(",")]
        elif key == "input_size":
            config[key] = [int(v) for v in value.split(",")]
        elif key == "pad_type":
            config["model_args"] = {"pad_type": value}
    return config


def _metadata(weights: Path | None) -> dict[str, str]:
    if weights is None:
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise SettingsError(
            "these weights cannot be read as safetensors",
            path=weights,
            remedy="Give a .safetensors file; other formats can run code when loaded and are refused.",
        ) from error


def _timm_model(name: str, weights: Path | None, config: dict[str, Any]) -> tuple[Any, str]:
    timm = _timm()
    if weights is None:
        try:
            model = timm.create_model(name, pretrained=True, num_classes=0)
        except Exception as error:  # the hub client raises many kinds, none of which a user can read
            raise SettingsError(
                f"the weights of {name} could not be fetched from the hub",
                remedy="Connect to the network, or download the safetensors file and give it with --weights.",
            ) from error
        return model, _state_hash(model)
    from safetensors.torch import load_file

    model = timm.create_model(name, pretrained=False, num_classes=0, **config["model_args"])
    classifier = config["classifier"]
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier or ())
    state = {
        k: v.float() for k, v in load_file(weights).items() if not k.startswith(tuple(f"{h}." for h in heads))
    }
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise BundleError(
            f"these weights are not those of a {name}",
            path=weights,
            remedy="Give the matching file or encoder name.",
        ) from error
    return model, hashlib.sha256(weights.read_bytes()).hexdigest()


def _sorted_header(content: bytes) -> bytes:
    """Bring a safetensors file's header into one order: the library writes metadata in a random one."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    ordered = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return content[:8] + ordered.ljust(end - 8) + content[end:]


def _state_hash(model: Any) -> str:
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()


def _timm() -> Any:
    ensure_torchvision()
    import timm

    return timm
