"""Makes the networks under `models/` and large graphs for benchmarks: `scripts/make_models.py`.

In the order the data flows:

    drawn, digits, photos, sounds, source_code   samples and labels, synthesised or from packages
    training, export                             the torch side: fit, then export
    nets/                                        one file per network: architecture, loss, export
    metrics, recording                           evaluation with ONNX Runtime, files, manifest
    zoo                                          the table of networks

    builder, light, fullsize, scale              graphs without training (onnx and numpy only)
"""
