"""Let torchvision's CUDA build be imported on a CPU build of torch: see install_models.py, which installs this.

Started with every Python of the environment, so it does nothing but to wait for somebody who imports torchvision.
"""

import sys

OPERATORS = ("nms", "qnms")
SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class _BeforeTorchvision:
    """Finds nothing; declares the operators when torchvision is first looked for."""

    library = None

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision" and self.library is None:
            self.library = True  # importing torch may look for torchvision itself
            import torch

            library = torch.library.Library("torchvision", "FRAGMENT")
            for operator in OPERATORS:
                library.define(operator + SIGNATURE)
            self.library = library  # the operators are gone with it


def install():
    if not any(type(finder).__name__ == _BeforeTorchvision.__name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, _BeforeTorchvision())
