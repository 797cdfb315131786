"""Words of the field in prose: what names a surface, and what tells a new mechanism from a new value."""

import re

from ledger.vocabulary import Domain


def _any(*words: str) -> re.Pattern[str]:
    return re.compile(r"(?<![a-z])(?:" + "|".join(words) + r")", re.IGNORECASE)


# Phrases that place an edit, by surface. Plural and inflected forms are covered by leaving word ends open.
SURFACES: dict[Domain, re.Pattern[str]] = {
    Domain.ARCH: _any(
        r"architect",
        r"attention",
        r"attn",
        r"\bxsa\b",
        r"rope\b|rope_|rotary|yarn",
        r"heads?\b|head[-_ ]dim|n_head|kv[-_ ]?head|gqa|mqa",
        r"mlp\b|ffn|swi?glu|geglu|gelu|relu|silu",
        r"residual|resid_",
        r"skip[-_ ](?:connection|gate|weight|path)|u-?net",
        r"embedding|bigram",
        r"(?:rms|layer|pre|post|qk|v|sub|peri|sandwich)[-_ ]?(?:norm|ln\b)|norm placement",
        r"soft-?cap",
        r"[qvko]_gain|qk[-_ ]?(?:gain|scale|norm)",
        r"gat(?:e|ing)\b|gated",
        r"num_layers|n_layer|depth|deeper|width|wider|hidden (?:dim|size)|mlp_mult|model_dim",
        r"loop(?:ed|s|_start|_end)|recurren",
        r"parallel[-_ ](?:block|residual)",
        r"conv(?:group|olution)?\d?\b|block\d",
        r"value[-_ ]?(?:embed|residual)|\bve_",
        r"logit[-_ ]bias",
        r"window[-_ ](?:pattern|size)|sliding[-_ ]window attention",
        r"smear|hyper-?connection|lambdas?\b",
        r"tied? (?:embed|weights)|untie",
        r"init(?:ialis|ializ)",
        r"whiten",
        r"activation\b(?! checkpoint)",
    ),
    Domain.OPT: _any(
        r"optimi[sz]er",
        r"muon",
        r"adamw?\b|adam_|adopt|sophia",
        r"\blion\b|shampoo|\bsoap\b",
        r"momentum",
        r"nesterov",
        r"beta_?[12s]\b|betas",
        r"\blr\b|_lr\b|learning[- ]rate",
        r"newton[- ]?schulz|ns[_ ]steps|polar express|orthogonali[sz]",
        r"grad(?:ient)?[-_ ](?:clip|norm|central)",
        r"\bema\b|ema_|\bswa\b|weight averag|lookahead|model soup",
        r"param(?:eter)? groups?",
        r"row[-_ ]normal|muoneq|normuon|cautious",
        r"preconditi",
    ),
    Domain.SCHED: _any(
        r"schedul",
        r"warm-?up|warm-?down|cool-?down|decay phase",
        r"anneal",
        r"epochs?\b(?! ttt)",
        r"cosine (?:lr|decay|warm)|lr (?:decay|floor)|min_lr|final[-_ ]lr",
        r"training (?:length|horizon|steps)|iterations|num_steps|longer training|train longer",
        r"batch[-_ ]size|batch[-_ ]tokens|batch ramp",
        r"param-data|data[-_ ]ratio|tokens per param",
        r"wallclock",
    ),
    Domain.REG: _any(
        r"weight[-_ ]decay|\bwd\b|_wd\b",
        r"dropout|drop[-_ ]?path|layerdrop|stochastic depth",
        r"label[-_ ]smooth",
        r"regulari[sz]",
        r"noise injection|gaussian noise|jitter",
        r"l2 penalty|spectral penalty|max[-_ ]norm",
    ),
    Domain.LOSS: _any(
        r"(?:training |auxiliary |aux |z-?|focal |contrastive |byte-weighted )loss|loss (?:function|term|weight|fn)"
        r"|training (?:signal|objective)",
        r"cross[- ]entropy",
        r"multi[- ]token prediction|\bmtp\b",
        r"distill",
        r"objective\b",
        r"poly-?loss|focal",
        r"entropy (?:penalty|bonus)|logit penalty|confidence penalty",
        r"token weight|loss weight",
    ),
    Domain.DATA: _any(
        r"tokeni[sz]",
        r"vocab(?:ulary)? (?:size|swap)",
        r"data (?:order|mix|shard|load|sampl|augment|quality)|dataset|training data",
        r"shard",
        r"shuffl",
        r"curriculum",
        r"hard[- ]example|self-paced|mask(?:s|ing) of examples",
        r"augment|flip|cutout|translat|mixup|cutmix|crop\b",
        r"document|packing of (?:docs|sequences)|bos\b",
        r"(?:train_|training )?seq(?:uence)?[-_ ]len",
        r"n-?gram filter|dedup",
    ),
    Domain.QUANT: _any(
        r"quanti[sz]",
        r"gptq|awq\b|hqq",
        r"\bint[2-8]\b|int[2-8]\b",
        r"\bqat\b|late-qat|fake[- ]quant|\bste\b",
        r"brotli|lzma|zstd|zlib|compress",
        r"artifact|packed bytes|byte[- ]shuffle",
        r"clip[_ ]sigmas|clip[_ ]range|calibration",
        r"prun(?:e|ing)",
        r"\bbits?\b|matrix_bits|embed_bits",
        r"hessian|damp(?:ing|_)|codebook",
    ),
    Domain.EVAL: _any(
        r"\bttt\b|ttt_|test-time|test time",
        r"\beval(?:uation)?\b|eval_|evaluat",
        r"sliding[- ]window eval|stride",
        r"\btta\b|tta_",
        r"inference|ensembl|cache at eval",
        r"temperature at|logit temperature|calibrated temperature",
        r"validat",
        r"\bcore[- ]metric|core_metric",
        r"n-?gram (?:cache|mix)|legal ttt|score-first",
    ),
    Domain.SYS: _any(
        r"torch\.compile|compile mode|compil(?:e|ation) (?:time|cost|overhead)|max-autotune|reduce-overhead",
        r"throughput|tokens?/s|faster steps|step time|ms/step",
        r"kernel (?:launch|fusion)|fused kernel|triton",
        r"cuda graph|cudnn|tf32|fp8|bf16 (?:for speed|matmul)",
        r"data-?loader (?:workers|speed|prefetch)|prefetch|pin_memory|num_workers",
        r"grad(?:ient)?[- ]accum|micro-?batch|device[-_ ]batch",
        r"activation checkpoint|memory (?:saving|footprint)",
        r"\bddp\b|all-?reduce|nccl",
        r"channels[-_ ]last",
        r"oom\b",
    ),
}

# Claims of other harnesses that are finer than our surfaces.
CLAIMS: dict[str, Domain] = {
    **{domain.value: domain for domain in Domain},
    "tok": Domain.DATA,
    "tokenizer": Domain.DATA,
    "curr": Domain.DATA,
    "curriculum": Domain.DATA,
    "aug": Domain.DATA,
    "ttt": Domain.EVAL,
    "schedule": Domain.SCHED,
}

# Quantities that size structure: a change of one of these is a change of dimension.
_SIZE_NAMES = (
    r"(?:\w+_)?(?:rope_dims|dims?|heads?|layers?|loops|mult|width|widths|depth|hidden|channels|vocab_size|size|len"
    r"|start|end|last_n|epochs|steps|iters|iterations|tokens|batches|stride|chunk|rank|bits|every|window)"
    r"|n_kv_head|n_head|head[-_ ]?dim|kv[- ]heads?|--[\w-]*(?:dim|depth|size|len|ratio|every|steps|pattern)"
    r"|depth\w*|blocks?|layers?|window(?:[- ]pattern)?|pattern|ratio|gqa(?: \d:\d)?|ve_dim|d_model"
)
_NUMBER = r"~?[-+]?\d[\d_,.]*(?:e-?\d+)?[kKM%]?(?:/\d+)*"
_ARROW = r"\s*(?:→|->|=>|⇒)\s*"
SIZE_CHANGE = re.compile(
    rf"(?<![\w.])(?:{_SIZE_NAMES})\]?`?\"?\s*(?:\([^)]*\)\s*)?(?:[=:]|from|of"
    rf"|is)?\s*[{{\"]?{_NUMBER}[}}\"]?(?:{_ARROW}|\s+to\s+)[{{\"]?{_NUMBER}"
    # In brackets such a setting describes the base that an edit starts from.
    rf"|(?<![\w.(,])(?<!, )(?:{_SIZE_NAMES})\s*=\s*{_NUMBER}"
    rf"|(?:halv|doubl|tripl|quarter|shrink|narrow|widen|enlarg|reduc|increas|shift|expand|extend|rais|lower|cut|grow"
    rf"|restrict)\w*\s+(?:the\s+)?(?:\S+\s+){{0,4}}?(?:{_SIZE_NAMES})\b"
    r"|shape\s+(?:from\s+)?\[[^\]]*\]\s*(?:→|->|to)\s*\[",
    re.IGNORECASE,
)
VALUE_CHANGE = re.compile(
    rf"{_NUMBER}(?:\*\w+)?{_ARROW}{_NUMBER}|from\s+{_NUMBER}\s+to\s+{_NUMBER}|(?:set|bump|raise|lower|tighten|loosen"
    rf"|increase|reduce|decrease|drop|tune)\w*\s+`?[\w.\[\]]+`?"
    rf"(?:\s+\S+){{0,4}}?\s+(?:to|by|from)\s+{_NUMBER}|\b\w+\s*=\s*{_NUMBER}|\w[\w-]*{_ARROW}\w",
    re.IGNORECASE,
)
# Only the value that something starts from, or a fixed factor on it.
INITIAL = re.compile(
    r"^\W*(?:\w+[- ]){0,3}?(?:re-?)?init(?:iali[sz]\w*|s|ial value)?\b(?!\s*=)"
    r"|scal\w+\s+(?:\S+\s+){0,4}?init\b|\binit\s+(?:of|std|scale|value|gain)\b(?=.*(?:→|->|\bto\b|\bby\b))"
    r"|(?:larger|smaller|lower|higher|different) (?:\w+ )?init"
    r"|(?:divide|multiply|damp|scale"
    r"|rescale)\w*\s+(?:the\s+)?[\w./-]+\s+(?:\S+\s+){0,3}?by\s+(?:a\s+)?(?:constant\s+)?[\d√(]|by\s+(?:1/)?sqrt\(",
    re.IGNORECASE,
)
# Verbs that put something in, take it out, or put it elsewhere; with what they are said of.
_THINGS = (
    r"norm|rmsnorm|layernorm|ln\b|gates?\b|gating|gated|activation|mlp|glu\b|relu|gelu|silu|skip|connection"
    r"|embedding|residual|projection|bias|param(?:eter)?s?\b|learn(?:able|ed)|vector|scalars?\b"
    r"|attention|attn|head\b|branch|path|layer|module|loss|term|objective|penalty|loop|xsa|rotary|rope\b|conv|pool"
    r"|hash|mixer|router|expert|gain|scale|coupling|input|model|cache|step|pass"
    r"|optimi[sz]er|schedule|muon|adam\w*|sgd|momentum|averag\w+|ema|decay|dropout|noise|smoothing|tokeni[sz]er"
    r"|augment\w*|flip|cutout|shuffl\w*|curriculum|quanti[sz]\w*|gptq|qat|compress\w*|coding|pruning|ttt|tta"
    r"|ensemble|stage"
)
STRUCTURE = re.compile(
    rf"\b(?:add|insert|introduc|inject|remov|replac|swap|substitut|switch|convert|disabl|enabl|eliminat|ti(?:e|ed)"
    rf"|unti(?:e|ed)|shar(?:e|ing)|split|bifurcat|decoupl|rout|fus|wrap|apply|appl(?:y|ied)|implement|us(?:e|ing)\b)"
    rf"\w*\s+(?:[^\s.;:]+\s+){{0,7}}?[\w/²^-]*(?:{_THINGS})",
    re.IGNORECASE,
)
# Mechanisms that have a name: to name one as the subject is to say that it is built.
MECHANISMS = re.compile(
    r"swi?glu|geglu|reglu|peri-?ln|sandwich|normformer|sub-?ln|v-norm|qkv?-norm|layerscale|hyper-?connection"
    r"|diff(?:erential)?[- ](?:attention|transformer)|parallel (?:residuals?|attention|block)|palm-style"
    r"|u-?net(?:-style)? (?:skip|residual)|value[- ](?:residual|embedding)|resformer|squeeze-excitation"
    r"|mixture[- ]of|moe\b|multi-token prediction|mtp\b|hash embedding|universal[- ]transformer|self-keyed"
    r"|per-(?:head|layer|token|block|loop|pass|channel|feature|iteration)[\w-]*\s+(?:[\w.-]+\s+){0,4}?(?:gate|gain"
    r"|scale|norm|bias|offset|strength|temperature|vector|sub-ln|input|weight|lambda|split|key)"
    r"|(?:output|input|attention|attn|mlp|skip|sigmoid|tied)[-_ ](?:\w+[-_ ])?gate|asymmetric|learn(?:able|ed|t)"
    r"|nn\.parameter|bifurcat|\w*-fold|cosine|sqrt decay|polar express|cautious|muoneq|normuon|soap|lookahead|mixup"
    r"|cutmix|focal|z-loss"
    r"|\w+-gate[ds]?\b|smear|hadamard|rotation|stochastic rounding|entropy cod|huffman|delta cod|curriculum"
    r"|label-free|self-paced|alternating flip|dynamic|adaptive|asynchronous|interleav|double-buffer",
    re.IGNORECASE,
)
# The author's own word that nothing but a literal changed.
LITERAL_ONLY = re.compile(
    r"(?:single|one|two|three|pure|only)[- ](?:literal|flag|knob|constant|number|default)|literal (?:edit|change"
    r"|default)|default(?:s)? (?:change|edit|literal)|flag change|only (?:edit|change)[^.]{0,40}(?:default"
    r"|train_args|literal|flag)"
    r"|no (?:vendor )?code changes?|hyperparameters? (?:only|defaults?)|env (?:var|default)|(?:one"
    r"|single) (?:hyperparam\w*|scalar|value)",
    re.IGNORECASE,
)
CODE_EDIT = re.compile(
    r"\.forward\b|__init__|nn\.parameter|f\.rms_norm|new (?:module|class|function|code path|branch|param)|(?:two"
    r"|three|multi|single)-site edit|forward (?:changed|edit|call)|(?:block|mlp|gpt|attention)\.\w*forward"
    r"|registered? (?:in)?to|"
    r"routed? to|added to|replaces? (?:the )?\w+ (?:with|by)",
    re.IGNORECASE,
)
