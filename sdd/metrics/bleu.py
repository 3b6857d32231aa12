"""Self-BLEU of a prompt's responses, all responses at once.

Letters beside those of `sdd.types`: ``N`` texts of one prompt, ``M`` tokens of all
of them in a row, ``W`` n-grams of one order, ``O`` orders (n = 1 .. O).

Looping over responses costs N counts of N-1 references each. Here every n-gram is
counted once in every text: its largest and second largest count over the texts are
all that "the most among the others" needs, for each text.
"""

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

SMOOTHINGS = ("exp", "epsilon", "none")
EPSILON = 0.1  # of sacrebleu's "floor" and nltk's method1; Chen and Cherry (2014) use it
Tokenize = Callable[[str], Sequence[str]]

# mteval-v13a: these marks always stand alone; ' , - . are decided by their neighbours.
_WORD_OR_MARK = re.compile(r"[!-&(-+/:-@\[-`{-~]|[^\s!-&(-+/:-@\[-`{-~]+")
_RULES = (
    (re.compile(r"([^0-9])([.,])"), r"\1 \2 "),
    (re.compile(r"([.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)
_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))


def check_texts(where: str, texts: Sequence[str]) -> None:
    """Raises ValueError in one line unless texts is a sequence of strings (one string is not)."""
    if isinstance(texts, str):
        raise ValueError(f"{where}: got one string; valid: a sequence of strings, one a response")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"{where}: texts[{i}] is a {type(text).__name__}; valid: a string")


def tokenize_13a(text: str) -> list[str]:
    """Splits a text into the tokens of WMT's mteval-v13a script, as sacrebleu (Post 2018, 1804.08771) does.

    Symbols stand alone, a period or comma stands alone unless it is between digits, a
    dash after a digit is split off; case is kept. Whitespace at the end is dropped
    first, as sacrebleu's BLEU does before it tokenizes.
    """
    text = text.rstrip().replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    if "&" in text:
        for entity, character in _ENTITIES:
            text = text.replace(entity, character)
    tokens: list[str] = []
    for word in _WORD_OR_MARK.findall(text):
        if "." in word or "," in word or "-" in word:
            # No rule reaches over a space, so that words can be taken one by one.
            word = f" {word} "
            for pattern, replacement in _RULES:
                word = pattern.sub(replacement, word)
            tokens += word.split()
        else:
            tokens.append(word)
    return tokens


def token_ids(tokens_N: Iterable[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers the tokens of all texts densely.

    Returns:
      M int64, the ids of all texts one after the other, and N int64, tokens of each text.
    """
    vocabulary: dict[str, int] = {}
    ids: list[int] = []
    lengths: list[int] = []
    for tokens in tokens_N:
        ids += [vocabulary.setdefault(token, len(vocabulary)) for token in tokens]
        lengths.append(len(tokens))
    return np.array(ids, np.int64), np.array(lengths, np.int64)


def _clipped_matches(gram_W: np.ndarray, text_W: np.ndarray, num_texts: int) -> np.ndarray:
    """Returns N: over each text's n-grams, the sum of min(count in it, most in any other text)."""
    pair, count = np.unique(gram_W * num_texts + text_W, return_counts=True)
    if not pair.size:
        return np.zeros(num_texts, np.int64)
    gram, text = np.divmod(pair, num_texts)
    first = np.flatnonzero(np.diff(gram, prepend=-1))  # pairs are sorted by n-gram
    size = np.diff(first, append=len(gram))
    is_most = count == np.repeat(np.maximum.reduceat(count, first), size)
    second = np.repeat(np.maximum.reduceat(np.where(is_most, 0, count), first), size)
    alone = np.repeat(np.add.reduceat(is_most.astype(np.int64), first), size) == 1
    # Whoever has less than the most, or shares it, is not clipped by the others.
    clipped = np.where(is_most & alone, second, count)
    return np.bincount(text, weights=clipped, minlength=num_texts).astype(np.int64)


def _matches(ids_M: np.ndarray, length_N: np.ndarray, max_order: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns NxO, n-grams of each text that others have too (clipped), and NxO, all of them."""
    num_texts, vocab_size = len(length_N), int(ids_M.max(initial=0)) + 1
    text_M = np.repeat(np.arange(num_texts), length_N)
    left_M = np.repeat(np.cumsum(length_N), length_N) - np.arange(len(ids_M))  # tokens to the text's end
    start_W, gram_W = np.arange(len(ids_M)), ids_M
    matched_NxO = np.zeros((num_texts, max_order), np.int64)
    for order in range(1, max_order + 1):
        if order > 1:
            whole_W = left_M[start_W] >= order
            start_W = start_W[whole_W]
            # Numbering (n-gram so far, next token) densely keeps ids below M, and the product below M^2.
            pair_W = gram_W[whole_W] * vocab_size + ids_M[start_W + order - 1]
            gram_W = np.unique(pair_W, return_inverse=True)[1]
        if not start_W.size:
            break
        matched_NxO[:, order - 1] = _clipped_matches(gram_W, text_M[start_W], num_texts)
    return matched_NxO, np.maximum(length_N[:, None] - np.arange(max_order), 0)


def _closest_other_length(length_N: np.ndarray) -> np.ndarray:
    """Returns N: the length among the other texts that is closest to a text's own; of two, the shorter."""
    order = np.argsort(length_N, kind="stable")
    sorted_N = length_N[order].astype(np.float64)
    below = np.concatenate([[-np.inf], sorted_N[:-1]])
    above = np.concatenate([sorted_N[1:], [np.inf]])
    closest_N = np.empty(len(order))
    closest_N[order] = np.where(sorted_N - below <= above - sorted_N, below, above)
    return closest_N


def _precisions(matched_NxO: np.ndarray, total_NxO: np.ndarray, smooth: str) -> np.ndarray:
    """Returns NxO: matched / total, with what the smoothing puts where nothing matched."""
    at_least_one = np.maximum(total_NxO, 1)
    precision_NxO = matched_NxO / at_least_one
    if smooth == "exp":
        missing_NxO = (matched_NxO == 0) & (total_NxO > 0)
        halved = 0.5 ** np.cumsum(missing_NxO, axis=1)
        return np.where(missing_NxO, halved / at_least_one, precision_NxO)
    if smooth == "epsilon":
        return np.where(matched_NxO == 0, EPSILON / at_least_one, precision_NxO)
    return precision_NxO


def bleu_against_others(
    texts: Sequence[str],
    *,
    smooth: str = "exp",
    effective_order: bool = True,
    max_order: int = 4,
    tokenize: Tokenize = tokenize_13a,
) -> np.ndarray:
    """Sentence BLEU of each text with all the others as references (Papineni et al. 2002).

    BP * exp(mean over n of log p_n), with p_n the share of the text's n-grams found in
    the others (each counted at most as often as in the reference that has most of it)
    and BP = min(1, exp(1 - r / c)) for c tokens and the closest reference length r. It
    is 0 where no token is found in the others, whatever the smoothing.

    Implementations differ in what they do where p_n = 0, and in texts shorter than O:
      "exp": 1/2, 1/4, ... of a match, order by order: sacrebleu's default.
      "epsilon": a tenth of a match: sacrebleu's "floor", nltk's method1.
      "none": the score is 0 (nltk's method0 gives a number around 1e-77 or less).
      effective_order: the mean is over the orders that the text is long enough for.
        Without it a text of less than O tokens gets 0 (as in sacrebleu), except with
        "epsilon", where an order without n-grams counts as p_n = 0.1 (as in nltk).
    So the defaults are sacrebleu's sentence_bleu / 100, and ("epsilon",
    effective_order=False, tokenize=str.split) is nltk's sentence_bleu with method1.

    Args:
      texts: N strings.
      smooth: "exp", "epsilon" or "none".
      effective_order: see above.
      max_order: O, the longest n-grams.
      tokenize: text -> tokens.

    Returns:
      N float64 in [0, 1]; nan if there is no other text.

    Raises:
      ValueError: for another smooth, max_order < 1, or texts that are not strings.
    """
    check_texts("bleu_against_others", texts)
    if smooth not in SMOOTHINGS:
        raise ValueError(f"bleu_against_others: smooth = {smooth!r}; valid: {', '.join(SMOOTHINGS)}")
    if max_order < 1:
        raise ValueError(f"bleu_against_others: max_order = {max_order}; valid: >= 1")
    if len(texts) < 2:
        return np.full(len(texts), np.nan)
    ids_M, length_N = token_ids(map(tokenize, texts))
    matched_NxO, total_NxO = _matches(ids_M, length_N, max_order)
    used_NxO = (total_NxO > 0) | (not effective_order)
    with np.errstate(divide="ignore"):  # log 0 = -inf is meant: the score is 0
        log_p_NxO = np.log(np.where(used_NxO, _precisions(matched_NxO, total_NxO, smooth), 1))
    log_mean_N = log_p_NxO.sum(1) / np.maximum(used_NxO.sum(1), 1)
    log_brevity_N = np.minimum(0, 1 - _closest_other_length(length_N) / np.maximum(length_N, 1))
    return np.where(matched_NxO.any(1), np.exp(log_mean_N + log_brevity_N), 0)


def self_bleu(
    texts: Sequence[str],
    *,
    smooth: str = "exp",
    effective_order: bool = True,
    max_order: int = 4,
    tokenize: Tokenize = tokenize_13a,
) -> float:
    """Mean over texts of the BLEU of one against all others (Zhu et al. 2018, 1802.01886).

    Higher means less diverse: 1 for identical texts of a token or more (of max_order
    tokens or more with effective_order=False), 0 for texts without a common token. It
    grows with the number of texts, because there are more references: compare equal
    numbers only. The paper's own code uses nltk's method1, n-grams up to 3 and nltk's
    word_tokenize; the defaults here are sacrebleu's sentence_bleu. See
    `bleu_against_others` for the arguments and how definitions differ.

    Returns:
      in [0, 1]; nan for less than two texts.

    Raises:
      ValueError: as `bleu_against_others`.
    """
    bleu_N = bleu_against_others(
        texts, smooth=smooth, effective_order=effective_order, max_order=max_order, tokenize=tokenize
    )
    return float(bleu_N.mean()) if bleu_N.size else float("nan")
