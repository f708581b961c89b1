"""The mathematics of distillation in torch alone: losses, geometry, ratio rules, optimizers and the hypergradient.

Every state and result has a leading axis R, the students of a pack; nothing here knows files, workers or Ray.
"""
