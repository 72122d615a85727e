"""A bucket's weights on disk (safetensors), and the torch policy that evaluation walks."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from btcai.calibration import StaticCalibration
from btcai.config import Config
from btcai.errors import ArtifactError, ConfigError
from btcai.features.table import FEATURE_NAMES
from btcai.inference import Encoded, tokens_of
from btcai.models.actor_critic import ActorCritic
from btcai.models.graphs import EncoderGraph, HeadGraph
from btcai.schema import Float32Array

WEIGHTS = "model.safetensors"
LOG_SIGMA = FEATURE_NAMES.index("log_sigma")


def new_model(config: Config, bucket_name: str) -> ActorCritic:
    """A freshly initialised network of the bucket's shape (torch's global generator decides the weights)."""
    bucket = config.buckets[bucket_name]
    return ActorCritic(config.model, bucket.patch_bars, len(FEATURE_NAMES), len(bucket.horizons_bars))


def save_model(model: ActorCritic, folder: Path) -> None:
    """Write the weights; the same weights give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / WEIGHTS)


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
        model.load_state_dict(load_file(path))
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
