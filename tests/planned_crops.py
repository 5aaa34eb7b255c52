"""The crops of a batch's plan, plain and augmented, without a loader."""

from torch import Tensor

from trainer.augment import Augmenter
from trainer.data import DeviceFeatures
from trainer.sampler import BatchPlan


def crops_of(features: DeviceFeatures, plan: BatchPlan) -> Tensor:
    """(B, T, F) float32 on the device, in nat."""
    return features.dequantise(features.levels(plan.rows, plan.first_frames, plan.crop_frames))


def augmented(augmenter: Augmenter, crops: Tensor, plan: BatchPlan) -> Tensor:
    """The crops of `plan`, (B, T, F), which are overwritten, as the augmenter changes them."""
    return augmenter.apply(crops, augmenter.prepare(augmenter.draw(plan), plan.crop_frames))
