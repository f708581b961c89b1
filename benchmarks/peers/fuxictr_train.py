"""FuxiCTR's own training loop (BaseModel.fit) on the rows of a file; a line of JSON with its speed and its AUC.

The wheel brings BaseModel and the layers without the zoo's DNN, DCNv2 and WideDeep, so these three are put together
from its layers here. Batches lie ready in memory, a tensor per column: reading and collating cost FuxiCTR nothing.
"""

from __future__ import annotations

import tempfile
from importlib.metadata import version
from pathlib import Path

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import CrossNetV2, FeatureEmbedding, LogisticRegression, MLP_Block
from fuxictr.pytorch.models import BaseModel
from rows import (
    CROSS_LAYERS,
    EMBEDDING,
    HIDDEN,
    LEARNING_RATE,
    Clocked,
    Data,
    Rows,
    arguments,
    auc,
    read,
    report,
    settled,
)
from torch import Tensor, nn


class Model(BaseModel):
    """`dnn`, `dcnv2` (parallel form) or `wide_deep` on FuxiCTR's embeddings, without dropout, norms or penalties."""

    def __init__(self, kind: str, feature_map: FeatureMap, root: str) -> None:
        super().__init__(feature_map, model_id=kind, verbose=0, model_root=root, metrics=["AUC"])
        width = feature_map.sum_emb_out_dim()
        self.embedding_layer = FeatureEmbedding(feature_map, EMBEDDING)
        self.wide = LogisticRegression(feature_map, use_bias=False) if kind == "wide_deep" else None
        self.cross = CrossNetV2(width, CROSS_LAYERS) if kind == "dcnv2" else None
        self.mlp = MLP_Block(width, HIDDEN, output_dim=None if self.cross else 1)
        self.head = nn.Linear(width + HIDDEN[-1], 1) if self.cross else None
        self.compile("adam", "binary_crossentropy", LEARNING_RATE)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        columns = self.get_inputs(inputs)
        features = self.embedding_layer(columns, flatten_emb=True)
        logits = self.mlp(features)
        if self.cross is not None:
            logits = self.head(torch.cat([self.cross(features), logits], dim=-1))
        if self.wide is not None:
            logits = self.wide(columns) + logits
        return {"y_pred": self.output_activation(logits)}


def feature_map(data: Data, numeric_width: int) -> FeatureMap:
    """The columns `n0` to `n12` and `c0` to `c25` as FuxiCTR describes them."""
    found = FeatureMap("clicks", data_dir="")
    found.labels, found.default_emb_dim = ["label"], EMBEDDING
    for column in range(data.train.numeric.shape[1]):
        found.features[f"n{column}"] = {"type": "numeric", "source": "", "embedding_dim": numeric_width}
    for column, size in enumerate(data.sizes):
        found.features[f"c{column}"] = {"type": "categorical", "source": "", "vocab_size": size}
    found.num_fields = found.get_num_fields()
    found.set_column_index()
    return found


def batches(rows: Rows, batch_rows: int) -> list[dict[str, Tensor]]:
    """Each batch as a tensor per column, contiguous and in the type that the model wants."""
    return [
        {f"n{column}": values for column, values in enumerate(batch.numeric.T.contiguous())}
        | {f"c{column}": values for column, values in enumerate(batch.categorical.T.contiguous())}
        | {"label": batch.labels}
        for batch in rows.batches(batch_rows)
    ]


def main() -> None:
    """Train once over the rows, score the held-out ones, print the line."""
    parser = arguments(__doc__)
    wide = "width of a numeric column's embedding: 1 is a scaled number, so that the dense part has the shape of ours"
    parser.add_argument("--numeric-width", type=int, default=1, help=wide)
    options = parser.parse_args()
    settled(options)
    data = read(options)
    test = batches(data.test, len(data.test.labels))
    train = Clocked(batches(data.train, options.batch_rows), options.warm_up_steps)
    with tempfile.TemporaryDirectory() as root:
        model = Model(options.model, feature_map(data, options.numeric_width), root)
        Path(model.model_dir).mkdir()
        model.fit(train, epochs=1, validation_data=test)
    speed = train.rows_per_cpu_second(options.batch_rows)
    quality = auc(data.test.labels, model.predict(test))
    report("fuxictr", options, rows_per_cpu_second=speed, auc=quality, steps=len(train), version=version("fuxictr"))


if __name__ == "__main__":
    main()
