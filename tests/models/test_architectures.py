import urllib.request
from pathlib import Path
from typing import Any

import pytest

from experiments.errors import ModelError
from experiments.models.architectures import architectures, build_network, find_architecture, scales_width

SMALL: dict[str, Any] = {"include_top": False, "alpha": None, "image_size": (32, 32), "num_classes": 2}


def test_every_family_of_keras_applications_is_known() -> None:
    assert {"ConvNeXtTiny", "DenseNet121", "EfficientNetB0", "InceptionV3", "VGG19", "Xception"} <= set(architectures())
    assert len(architectures()) >= 38


def test_unknown_architecture_names_nearest_one() -> None:
    with pytest.raises(ModelError) as error:
        find_architecture("Densenet121")
    assert str(error.value) == (
        "model.architecture='Densenet121' is not a network of keras.applications. Did you mean 'DenseNet121'? "
        "Set model.architecture=NAME, spelled as in Keras."
    )


def test_only_the_mobilenets_scale_their_width() -> None:
    scaled = {name for name in architectures() if scales_width(name)}
    assert scaled == {"MobileNet", "MobileNetV2", "MobileNetV3Large", "MobileNetV3Small"}


@pytest.mark.parametrize(("architecture", "minimum"), [("MobileNetV2", 32), ("MobileNetV3Small", 32), ("Xception", 71)])
def test_images_below_the_minimum_are_refused(architecture: str, minimum: int) -> None:
    with pytest.raises(ModelError) as error:
        build_network(architecture, imagenet=False, **(SMALL | {"image_size": (32, 16)}))
    assert str(error.value) == (
        f"data.image_size=[32,16] is too small for model.architecture={architecture}: expected "
        f"[{minimum},{minimum}] or larger. Set data.image_size=[{minimum},{minimum}] for photos, or choose another "
        "model."
    )


def test_alpha_without_imagenet_weights_is_refused_with_known_values() -> None:
    with pytest.raises(ModelError, match=r"alpha must be one of `0\.35`.*Received `alpha=0\.42` Set data\.image_size"):
        build_network("MobileNetV2", imagenet=True, **(SMALL | {"alpha": 0.42}))


@pytest.mark.parametrize(
    ("architecture", "size", "name"),
    [
        ("MobileNetV2", 96, "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_96_no_top.h5"),
        ("EfficientNetV2B0", 32, "efficientnetv2-b0_notop.h5"),
        pytest.param("NASNetMobile", 224, "nasnet_mobile_no_top.h5", marks=pytest.mark.long),
    ],
)
def test_failed_download_of_imagenet_weights_names_alternatives(
    architecture: str, size: int, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    # Keras reads the environment variable only when it is imported.
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    closed = urllib.request.ProxyHandler({"https": "http://127.0.0.1:9"})
    monkeypatch.setattr(urllib.request, "_opener", urllib.request.build_opener(closed))
    with pytest.raises(ModelError) as error:
        build_network(architecture, imagenet=True, **(SMALL | {"image_size": (size, size)}))
    message = str(error.value)
    assert message.startswith(
        f"model.weights=imagenet: the weights of {architecture} could not be downloaded (URL fetch failure on https://"
    )
    assert message.endswith(
        f"Without network, set model.weights=FILE, or put {name} into {tmp_path / 'models'}, "
        "or set model.weights=null to train from scratch."
    )
