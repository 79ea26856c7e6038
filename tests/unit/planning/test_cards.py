import pytest

from minimind.planning.cards import CARDS, data_sheet_peak


@pytest.mark.parametrize(
    ("name", "dtype", "tf32", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", False, 989.4),
        ("NVIDIA H100 PCIe", "bfloat16", False, 756),
        ("NVIDIA H200", "float16", False, 989.4),
        ("NVIDIA A100-SXM4-80GB", "float32", False, 19.5),
        ("NVIDIA A100-SXM4-80GB", "float32", True, 156),
        ("NVIDIA A100-PCIE-40GB", "bfloat16", True, 312),
        ("NVIDIA A10", "bfloat16", False, 125),
        ("NVIDIA A10G", "bfloat16", False, 70),
        ("NVIDIA L4", "bfloat16", False, 121),
        ("NVIDIA L40S", "bfloat16", False, 362),
        ("Tesla V100-SXM2-32GB", "float16", False, 125),
        ("Tesla V100-SXM2-32GB", "bfloat16", False, 15.7),
        ("Tesla V100-SXM2-32GB", "float32", True, 15.7),
        ("Tesla T4", "float16", False, 65),
        ("NVIDIA GeForce RTX 3090", "bfloat16", False, 71.2),
        ("NVIDIA GeForce RTX 4090", "bfloat16", False, 165.2),
        ("NVIDIA GeForce RTX 4080 SUPER", "bfloat16", False, 104.4),
        ("NVIDIA GeForce RTX 5090", "bfloat16", False, 209.5),
        ("NVIDIA GeForce RTX 3060", "float32", False, 12.7),
        ("NVIDIA B200", "bfloat16", False, 2250),
    ],
)
def test_known_gpus(name, dtype, tf32, tera):
    assert data_sheet_peak(name, dtype, tf32) == pytest.approx(tera * 1e12)


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA X9000",
        "AMD Instinct MI300X",
    ],
)
def test_other_gpus_are_not_guessed(name):
    assert data_sheet_peak(name, "bfloat16") is None


def test_every_card_to_plan_for_is_in_the_table():
    for name, card in CARDS.items():
        assert card.memory >= 24 << 30, name
        assert card.peak("bfloat16") >= card.peak("float32"), name
