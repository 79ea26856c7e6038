"""Stands in for a module that transformers' source distribution leaves out.

One common test asks that testers of generative models inherit this class. What its tests check
(cached against full decoding, batches, left padding) is in ``tests/unit/model``.
"""


class GenerationTesterMixin:
    pass
