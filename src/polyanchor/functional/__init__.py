"""Pure functions on tensors: each formula of the package, once."""

from polyanchor.functional.center_regularizer import center_regularizer as center_regularizer
from polyanchor.functional.multi_proxy_anchor import Impl as Impl
from polyanchor.functional.multi_proxy_anchor import anchor_loss as anchor_loss
from polyanchor.functional.multi_proxy_anchor import log1p_sum_exp as log1p_sum_exp
from polyanchor.functional.multi_proxy_anchor import multi_proxy_anchor_loss as multi_proxy_anchor_loss
from polyanchor.functional.ndcg import dcg as dcg
from polyanchor.functional.ndcg import ideal_dcg_binary as ideal_dcg_binary
from polyanchor.functional.ndcg import ideal_gains as ideal_gains
from polyanchor.functional.ndcg import ndcg_at_k as ndcg_at_k
from polyanchor.functional.retrieval import map_at_r as map_at_r
from polyanchor.functional.retrieval import precision_at_k as precision_at_k
from polyanchor.functional.retrieval import r_precision as r_precision
from polyanchor.functional.retrieval import recall_at_k as recall_at_k
from polyanchor.functional.retrieval import reciprocal_rank as reciprocal_rank
from polyanchor.functional.similarity import class_similarity as class_similarity
from polyanchor.functional.similarity import pool as pool
from polyanchor.functional.similarity import unit_rows as unit_rows
from polyanchor.types import Anchor as Anchor
from polyanchor.types import Pooling as Pooling
