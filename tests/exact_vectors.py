"""Small vectors whose cosines are exact in float32, for tests of ties."""

from fractions import Fraction

from hypothesis import strategies as st

# Vectors whose cosines are exact in float32, so that equal means equal: length 1, 2 or 3, or zero.
SIGNS = st.tuples(*[st.sampled_from([-1, 1])] * 4)
UNITS = st.tuples(st.integers(0, 3), st.sampled_from([-3, 1, 2])).map(
    lambda t: tuple(t[1] if i == t[0] else 0 for i in range(4))
)
VECTORS = st.one_of(SIGNS, UNITS, st.just((0, 0, 0, 0)))


def cosine(a, b):
    lengths = [round(sum(x * x for x in v) ** 0.5) or 1 for v in (a, b)]
    return Fraction(sum(x * y for x, y in zip(a, b, strict=True)), lengths[0] * lengths[1])
