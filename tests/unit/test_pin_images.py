"""A released chart runs exactly the images that were built with it."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from local.stack import ROOT
from tests.support import parts
from tests.support.modules import module_of

pin_images = module_of(ROOT / "helm" / "pin_images.py", "pin_images")

GATEWAY = f"registry.example.com/team/carillon-gateway@sha256:{'a' * 64}"
EDGE = f"registry.example.com:5000/carillon-edge@sha256:{'b' * 64}"


def test_only_the_images_change(tmp_path: Path) -> None:
    pin_images.pin(GATEWAY, EDGE, tmp_path / "carillon")
    before = yaml.safe_load((pin_images.CHART / "values.yaml").read_text("utf-8"))
    after = yaml.safe_load((tmp_path / "carillon" / "values.yaml").read_text("utf-8"))
    before["image"] |= {"repository": "registry.example.com/team/carillon-gateway", "digest": f"sha256:{'a' * 64}"}
    before["edge"]["image"] |= {"repository": "registry.example.com:5000/carillon-edge", "digest": f"sha256:{'b' * 64}"}
    assert after == before


def test_the_package_needs_no_other_file_and_names_both_digests(tmp_path: Path) -> None:
    helm = parts.require("helm")
    pin_images.pin(GATEWAY, EDGE, tmp_path / "carillon")
    assert not [path for path in (tmp_path / "carillon").rglob("*") if path.is_symlink()]
    packed = subprocess.run(
        [helm, "package", tmp_path / "carillon", "--destination", tmp_path], capture_output=True, text=True, check=False
    )
    assert packed.returncode == 0, packed.stderr
    (package,) = tmp_path.glob("carillon-*.tgz")
    rendered = subprocess.run(
        [helm, "template", "x", package, "--set", "secrets.existingSecret=s"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert rendered.returncode == 0, rendered.stderr
    assert GATEWAY in rendered.stdout
    assert EDGE in rendered.stdout


@pytest.mark.parametrize("image", ["", "name:1.2", "registry.example.com/x@sha256:12", f"x@sha256:{'a' * 64}", "a b/c"])
def test_an_image_without_a_digest_is_refused(image: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pin_images.main([GATEWAY, image, str(tmp_path / "carillon")]) == 2
    assert capsys.readouterr().err.startswith("carillon: EDGE: ")
    assert not (tmp_path / "carillon").exists()


def test_what_an_image_is_called_is_no_command(tmp_path: Path) -> None:
    """Whoever starts the release by hand gives the names, and `make chart` passes them on through a shell."""
    made = tmp_path / "made"
    ran = subprocess.run(
        ["make", "--silent", "chart"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "GATEWAY": f"`touch {made}`", "EDGE": EDGE},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode != 0
    assert "`touch" in ran.stderr
    assert not made.exists()


def test_a_chart_without_these_values_is_refused() -> None:
    with pytest.raises(pin_images.WrongImage, match=r"no edge\.image\.digest"):
        pin_images._with_values("image:\n  digest: x\n", {("edge", "image", "digest"): "y"})
