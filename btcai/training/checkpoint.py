"""A bucket's weights on disk (safetensors), and the torch policy that evaluation walks."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from btcai.calibration import StaticCalibration
from btcai.config import Config
from btcai.errors import ArtifactError, ConfigError
from btcai.features.table import FEATURE_NAMES
from btcai.inference.bundle import Encoded, tokens_of
from btcai.models.actor_critic import ActorCritic
from btcai.models.graphs import EncoderGraph, HeadGraph
from btcai.paths import WEIGHTS
from btcai.schema import Float32Array

SHA256 = "sha256"
"""In the file's header: of names, shapes and bytes of the weights; files of an older btcai have none."""
LOG_SIGMA = FEATURE_NAMES.index("log_sigma")


def new_model(config: Config, bucket_name: str) -> ActorCritic:
    """A freshly initialised network of the bucket's shape (torch's global generator decides the weights)."""
    bucket = config.buckets[bucket_name]
    return ActorCritic(config.model, bucket.patch_bars, len(FEATURE_NAMES), len(bucket.horizons_bars))


def save_model(model: ActorCritic, folder: Path) -> None:
    """Write the weights; the same weights give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    content = save(tensors, {SHA256: tensors_sha256(tensors)})
    (folder / WEIGHTS).write_bytes(content)  # save_file raises no OSError where the disk is full


def tensors_sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    """Over names, types, shapes and bytes, in the order of names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def load_model(folder: Path, bucket_name: str, config: Config) -> ActorCritic:
    """The saved network in evaluation mode; ArtifactError names the command that makes it."""
    return restore(new_model(config, bucket_name), folder)


def restore(model: ActorCritic, folder: Path) -> ActorCritic:
    """`model` with the weights that save_model wrote, in evaluation mode; ArtifactError where they do not fit."""
    path = folder / WEIGHTS
    remedy = "make it with: btcai run"
    if not path.is_file():
        raise ArtifactError(f"{path} is missing; {remedy}")
    try:
        with safe_open(path, "pt") as file:
            sha256 = (file.metadata() or {}).get(SHA256)
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); {remedy}") from error
    if sha256 is not None and sha256 != tensors_sha256(tensors):
        raise ArtifactError(f"{path} is damaged: not the weights that were written; {remedy}")
    if broken := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise ArtifactError(f"weights must be finite, {broken[0]} of {path} is not; {remedy}")
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ArtifactError(f"{path} does not fit the network of params.yaml ({reason}); {remedy}") from error
    return model.eval()


class TorchPolicy:
    """A trained network behind the same interface as an exported bundle."""

    def __init__(self, model: ActorCritic, bucket_name: str, config: Config) -> None:
        settings = config.buckets[bucket_name]
        self.bucket = bucket_name
        self.patch_bars = settings.patch_bars
        self.lookback_bars = settings.lookback_bars
        self.horizons_bars = settings.horizons_bars
        self.calibration = StaticCalibration(  # inside what encode returns
            offset=model.quantile_offset.double().numpy(),
            std_factor=model.std_factor.double().numpy(),
            temperature=model.temperature.double().numpy(),
        )
        self._encoder = EncoderGraph(model, settings.horizons_bars, LOG_SIGMA).eval()
        self._head = HeadGraph(model).eval()

    @torch.no_grad()
    def encode(self, features: Float32Array) -> Encoded:
        """Raw feature rows ((D + 143) * patch_bars, F) -> D decision times."""
        outputs = self._encoder(torch.from_numpy(tokens_of(features, self.patch_bars)))
        return Encoded(*(tensor[0].numpy() for tensor in outputs))

    @torch.no_grad()
    def probabilities(self, latent: Float32Array, account: Float32Array) -> Float32Array:
        """latent (B, Z), account (B, A) -> probabilities (B, 4) in the order of Action."""
        probabilities: Float32Array = self._head(torch.from_numpy(latent), torch.from_numpy(account))[0].numpy()
        return probabilities


def set_up_torch(config: Config) -> None:
    """Threads of params.yaml; denormals flushed to zero, for they cost wall clock and nothing else."""
    torch.set_num_threads(config.threads)
    torch.set_flush_denormal(True)


def require_device(config: Config) -> None:
    """ConfigError where encoders are to be trained on a GPU that torch does not find."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "device must be cpu where torch finds no CUDA device, was cuda; set device: cpu in params.yaml, or install "
            "a CUDA build with: make setup TORCH_INDEX=ADDRESS"
        )


def load_policy(folder: Path, bucket_name: str, config: Config) -> TorchPolicy:
    """The saved network as a policy."""
    set_up_torch(config)
    return TorchPolicy(load_model(folder, bucket_name, config), bucket_name, config)
