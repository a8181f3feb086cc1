import timm
import torch
from torch import nn
from torch.nn import functional as F

from ovperception.backbones.fast_linear import FastLinear, linear, quicken_linears, quicken_mlp


def test_it_computes_what_the_layer_did_for_any_leading_dimensions() -> None:
    plain = nn.Linear(48, 20)
    fast = FastLinear(plain)
    for shape in ((48,), (5, 48), (2, 3, 48), (0, 48)):
        x = torch.randn(shape)
        with torch.no_grad():
            torch.testing.assert_close(fast(x), plain(x))
    strided = torch.randn(4, 48, 7).transpose(1, 2)
    with torch.inference_mode():
        torch.testing.assert_close(fast(strided), plain(strided))


def test_a_product_without_a_layer() -> None:
    x, weight = torch.randn(2, 3, 8), torch.randn(5, 8)
    with torch.inference_mode():
        torch.testing.assert_close(linear(x, weight), x @ weight.T)
        assert linear(x, weight[:0]).shape == (2, 3, 0)
    assert linear(x, weight.requires_grad_()).requires_grad


def test_the_gelu_is_the_exact_one() -> None:
    plain = nn.Linear(16, 33, bias=False)
    fast = FastLinear(plain, gelu=True)
    x = 3 * torch.randn(50, 16)
    expected = F.gelu(plain(x))
    with torch.no_grad():
        torch.testing.assert_close(fast(x), expected.detach())
    torch.testing.assert_close(fast(x), expected)


def test_gradients_and_other_dtypes_take_the_ordinary_way() -> None:
    fast = FastLinear(nn.Linear(8, 4), gelu=True)
    fast(torch.randn(3, 8)).sum().backward()
    assert fast.weight.grad is not None
    with torch.no_grad():
        assert fast.double()(torch.randn(3, 8).double()).dtype == torch.float64
    half = FastLinear(nn.Linear(8, 4))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert half(torch.randn(3, 8)).dtype == torch.bfloat16


def test_quickened_modules_keep_their_names_and_their_answers() -> None:
    block = timm.create_model("convnext_atto", conv_mlp=False).stages[0].blocks[0].eval()
    x = torch.randn(1, 40, 9, 9)
    with torch.no_grad():
        before, names = block(x), list(block.state_dict())
        quicken_mlp(block.mlp)
        assert isinstance(block.mlp.fc1, FastLinear)
        torch.testing.assert_close(block(x), before, rtol=1e-5, atol=1e-5)
    assert list(block.state_dict()) == names


def test_what_is_read_by_name_is_left_alone() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    quicken_linears(layer)
    assert isinstance(layer.linear1, FastLinear)
    assert not isinstance(layer.self_attn.out_proj, FastLinear)
