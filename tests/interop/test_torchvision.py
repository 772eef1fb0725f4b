"""Networks by torchvision's names and with its stem, against the same written in PyTorch."""

import jax
import numpy as np
import pytest

from diffence_jax.interop import from_torch
from diffence_jax.models import num_parameters, predictor

torch = pytest.importorskip("torch", reason="the reference is in PyTorch")
nn = torch.nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def named(**layers):
  """Layers in their order, by their names."""
  sequence = nn.Sequential()
  for name, layer in layers.items():
    sequence.add_module(name, layer)
  return sequence


def conv(before, after, size, stride=1):
  return nn.Conv2d(before, after, size, stride, size // 2, bias=False)


class Block(nn.Module):
  """A basic block, or of three sizes a bottleneck."""

  def __init__(self, before, width, stride, is_bottleneck):
    super().__init__()
    after = 4 * width if is_bottleneck else width
    self.is_bottleneck = is_bottleneck
    if is_bottleneck:
      sizes = ((before, width, 1, 1), (width, width, 3, stride), (width, after, 1, 1))
    else:
      sizes = ((before, width, 3, stride), (width, width, 3, 1))
    for number, size in enumerate(sizes, 1):
      setattr(self, f"conv{number}", conv(*size))
      setattr(self, f"bn{number}", nn.BatchNorm2d(size[1]))
    if stride != 1 or before != after:
      self.downsample = nn.Sequential(conv(before, after, 1, stride), nn.BatchNorm2d(after))

  def forward(self, x):
    h = torch.relu(self.bn1(self.conv1(x)))
    h = self.bn2(self.conv2(h))
    if self.is_bottleneck:
      h = self.bn3(self.conv3(torch.relu(h)))
    return torch.relu(h + (self.downsample(x) if hasattr(self, "downsample") else x))


class ResNet(nn.Module):
  """As torchvision's."""

  def __init__(self, stages, is_bottleneck, width=64, num_classes=10):
    super().__init__()
    self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
    self.maxpool = nn.MaxPool2d(3, 2, 1)
    before, self.num_stages = width, len(stages)
    for stage, num_blocks in enumerate(stages):
      blocks = nn.Sequential()
      for block in range(num_blocks):
        stride = 2 if stage and not block else 1
        blocks.append(Block(before, width * 2**stage, stride, is_bottleneck))
        before = width * 2**stage * (4 if is_bottleneck else 1)
      setattr(self, f"layer{stage + 1}", blocks)
    self.fc = nn.Linear(before, num_classes)

  def forward(self, x):
    x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
    for stage in range(self.num_stages):
      x = getattr(self, f"layer{stage + 1}")(x)
    return self.fc(x.mean(dim=(2, 3)))


class DenseLayer(nn.Module):
  def __init__(self, before, growth):
    super().__init__()
    self.norm1, self.conv1 = nn.BatchNorm2d(before), conv(before, 4 * growth, 1)
    self.norm2, self.conv2 = nn.BatchNorm2d(4 * growth), conv(4 * growth, growth, 3)

  def forward(self, x):
    h = self.conv1(torch.relu(self.norm1(x)))
    return torch.cat([x, self.conv2(torch.relu(self.norm2(h)))], dim=1)


class DenseNet(nn.Module):
  """As torchvision's, with a growth of half the width."""

  def __init__(self, stages, width=64, num_classes=10):
    super().__init__()
    self.features = named(
      conv0=nn.Conv2d(3, width, 7, 2, 3, bias=False),
      norm0=nn.BatchNorm2d(width), relu0=nn.ReLU(), pool0=nn.MaxPool2d(3, 2, 1),
    )  # fmt: skip
    features = width
    for stage, num_layers in enumerate(stages, 1):
      layers = {}
      for layer in range(num_layers):
        layers[f"denselayer{layer + 1}"] = DenseLayer(features, width // 2)
        features += width // 2
      self.features.add_module(f"denseblock{stage}", named(**layers))
      if stage < len(stages):
        transition = named(
          norm=nn.BatchNorm2d(features), relu=nn.ReLU(),
          conv=conv(features, features // 2, 1), pool=nn.AvgPool2d(2, 2),
        )  # fmt: skip
        self.features.add_module(f"transition{stage}", transition)
        features //= 2
    self.features.add_module("norm5", nn.BatchNorm2d(features))
    self.classifier = nn.Linear(features, num_classes)

  def forward(self, x):
    return self.classifier(torch.relu(self.features(x)).mean(dim=(2, 3)))


def with_statistics(network):
  """The network in evaluation mode, with scales and statistics that tell layers apart."""
  torch.manual_seed(0)
  for module in network.modules():
    if isinstance(module, nn.BatchNorm2d):
      for value in (module.weight.data, module.running_var):
        value.uniform_(0.5, 1.5)
      for value in (module.bias.data, module.running_mean):
        value.uniform_(-0.2, 0.2)
  return network.eval()


# Small ones of the same kind: the full sizes are compared by their parameters below.
NETWORKS = {
  "resnet18": lambda: ResNet((1, 2, 1), False, width=8),
  "resnet50": lambda: ResNet((1, 2, 1), True, width=8),
  "densenet121": lambda: DenseNet((2, 3, 2, 1), width=8),
}


@pytest.mark.parametrize("size", [64, 50])
@pytest.mark.parametrize("kind", NETWORKS)
def test_logits_are_those_of_pytorch(kind, size):
  network = with_statistics(NETWORKS[kind]())
  module, variables = from_torch(kind, network.state_dict(), mean=MEAN, std=STD)
  assert module.stem == "large"
  images = np.random.default_rng(0).random((3, size, size, 3), np.float32)
  scaled = (images - np.float32(MEAN)) / np.float32(STD)
  with torch.no_grad():
    expected = network(torch.from_numpy(scaled).permute(0, 3, 1, 2)).numpy()
  logits = jax.jit(predictor(module, variables))(None, images)
  assert np.std(expected) > 1e-2
  np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
  "kind, make, published",
  [
    ("resnet18", lambda: ResNet((2, 2, 2, 2), False, num_classes=1000), 11_689_512),
    ("resnet50", lambda: ResNet((3, 4, 6, 3), True, num_classes=1000), 25_557_032),
    ("densenet121", lambda: DenseNet((6, 12, 24, 16), num_classes=1000), 7_978_856),
  ],
)
def test_the_published_sizes_have_the_published_numbers_of_parameters(kind, make, published):
  """As torchvision's documentation gives them."""
  with torch.device("meta"):
    network = make()
  weights = {
    name: np.broadcast_to(np.float32(0), tuple(value.shape))
    for name, value in network.state_dict().items()
  }
  module, variables = from_torch(kind, weights, mean=MEAN, std=STD)
  assert num_parameters(variables) == published
  fields = {"num_classes": 1000, "mean": MEAN, "std": STD, "stem": "large"}
  assert module == type(module)(**fields)


def test_bottlenecks_are_no_resnet18():
  weights = NETWORKS["resnet50"]().state_dict()
  with pytest.raises(ValueError, match=r"don't fit a resnet18.*layer1\.0\.conv3\.weight"):
    from_torch("resnet18", weights, mean=MEAN, std=STD)


def test_a_stem_of_another_size_is_refused():
  weights = NETWORKS["resnet18"]().state_dict() | {"conv1.weight": torch.zeros(8, 3, 5, 5)}
  with pytest.raises(ValueError, match=r"conv1\.weight is a convolution of \[5, 5\]; expected"):
    from_torch("resnet18", weights, mean=MEAN, std=STD)
