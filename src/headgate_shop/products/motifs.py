# ruff: noqa: E501 - a table, read row by row
"""What drawings show: flat shapes on a ground at y = 320, in a square of 400, in four colours.

`{a}` is the thing itself, `{b}` what it is set off by, `{c}` its dark lines, `{d}` its light.
"""

from __future__ import annotations

from typing import Final

__all__ = ["MOTIFS", "OF_CATEGORY", "OF_WORD"]

MOTIFS: Final = {
    "pot": (
        '<path d="M118 200h164v76q0 40-40 40h-84q-40 0-40-40z" fill="{a}"/>'
        '<path d="M118 200h164v24H118z" fill="{b}"/>'
        '<path d="M110 214h-26a10 10 0 0 0 0 20h34M290 214h26a10 10 0 0 1 0 20h-34" fill="none"'
        ' stroke="{c}" stroke-width="12" stroke-linecap="round"/>'
        '<path d="M112 200q88-52 176 0z" fill="{a}"/><circle cx="200" cy="166" r="12" fill="{c}"/>'
        '<path d="M140 240v40" stroke="{d}" stroke-width="10" stroke-linecap="round" opacity=".6"/>'
    ),
    "bowl": (
        '<path d="M88 206h224q0 110-82 110h-60q-82 0-82-110z" fill="{a}"/>'
        '<ellipse cx="200" cy="206" rx="112" ry="22" fill="{b}"/>'
        '<circle cx="160" cy="186" r="30" fill="{c}"/><circle cx="214" cy="178" r="36" fill="{d}"/>'
        '<circle cx="256" cy="192" r="24" fill="{b}"/>'
        '<path d="M90 210q110 34 220 0" fill="none" stroke="{a}" stroke-width="14"/>'
        '<path d="M120 244q8 34 36 48" stroke="{d}" stroke-width="9" fill="none"'
        ' stroke-linecap="round" opacity=".6"/>'
    ),
    "board": (
        '<g transform="rotate(-8 200 220)"><rect x="130" y="120" width="140" height="196" rx="22"'
        ' fill="{a}"/><circle cx="200" cy="146" r="11" fill="{d}"/>'
        '<path d="M150 186h100M150 216h100M150 246h100M150 276h100" stroke="{b}" stroke-width="4"'
        ' opacity=".7"/></g>'
        '<g transform="rotate(14 280 220)"><path d="M270 120q34 60 22 120h-22z" fill="{d}"/>'
        '<rect x="266" y="240" width="30" height="76" rx="12" fill="{c}"/></g>'
    ),
    "jar": (
        '<rect x="140" y="150" width="120" height="166" rx="26" fill="{a}"/>'
        '<rect x="150" y="214" width="100" height="92" rx="18" fill="{b}"/>'
        '<rect x="148" y="122" width="104" height="36" rx="10" fill="{c}"/>'
        '<rect x="172" y="196" width="56" height="40" rx="6" fill="{d}"/>'
        '<path d="M158 178v96" stroke="{d}" stroke-width="8" stroke-linecap="round" opacity=".7"/>'
    ),
    "cup": (
        '<path d="M120 190h140v70q0 56-56 56h-28q-56 0-56-56z" fill="{a}"/>'
        '<path d="M260 206h16a32 32 0 0 1 0 64h-20" fill="none" stroke="{a}" stroke-width="18"/>'
        '<ellipse cx="190" cy="190" rx="70" ry="16" fill="{c}"/>'
        '<path d="M160 160q-16-18 0-36t0-36M206 160q-16-18 0-36t0-36" fill="none" stroke="{d}"'
        ' stroke-width="9" stroke-linecap="round" opacity=".8"/>'
        '<rect x="92" y="310" width="196" height="12" rx="6" fill="{b}"/>'
    ),
    "kettle": (
        '<path d="M130 316q-18-112 70-126 88 14 70 126z" fill="{a}"/>'
        '<path d="M264 246q40-10 44-66" fill="none" stroke="{a}" stroke-width="20"'
        ' stroke-linecap="round"/><path d="M148 192q52-86 104 0" fill="none" stroke="{c}"'
        ' stroke-width="12" stroke-linecap="round"/><circle cx="200" cy="184" r="12" fill="{b}"/>'
        '<path d="M128 290h144v26H128z" fill="{b}"/>'
        '<path d="M156 240q4-22 20-30" stroke="{d}" stroke-width="9" fill="none"'
        ' stroke-linecap="round"/>'
    ),
    "lamp": (
        '<path d="M150 120h100l44 104H106z" fill="{a}"/><path d="M112 210h176l6 14H106z" fill="{b}"/>'
        '<path d="M200 224v76" stroke="{c}" stroke-width="12"/>'
        '<rect x="150" y="300" width="100" height="18" rx="9" fill="{c}"/>'
        '<path d="M120 232l-34 84h228l-34-84z" fill="{d}" opacity=".35"/>'
        '<path d="M166 136l-18 52" stroke="{d}" stroke-width="8" stroke-linecap="round"/>'
    ),
    "pendant": (
        '<path d="M200 40v96" stroke="{c}" stroke-width="7"/>'
        '<path d="M116 226q0-90 84-90t84 90z" fill="{a}"/><circle cx="200" cy="230" r="24" fill="{d}"/>'
        '<path d="M108 226h184v16H108z" fill="{b}"/>'
        '<path d="M126 246L84 340h232l-42-94z" fill="{d}" opacity=".35"/>'
        '<path d="M142 202q8-32 34-42" stroke="{d}" stroke-width="8" fill="none"'
        ' stroke-linecap="round"/>'
    ),
    "candle": (
        '<rect x="164" y="190" width="72" height="126" rx="10" fill="{d}"/>'
        '<path d="M200 190v-18" stroke="{c}" stroke-width="6" stroke-linecap="round"/>'
        '<path d="M200 106q34 36 0 68-34-32 0-68z" fill="{a}"/>'
        '<path d="M200 134q14 18 0 34-14-16 0-34z" fill="{b}"/>'
        '<path d="M164 214q20 22 36 0t36 0v-14q0-10-10-10h-52q-10 0-10 10z" fill="{b}" opacity=".5"/>'
        '<rect x="120" y="308" width="160" height="14" rx="7" fill="{c}"/>'
    ),
    "chair": (
        '<path d="M150 110q50-16 100 0v100H150z" fill="{a}"/>'
        '<rect x="136" y="206" width="128" height="30" rx="14" fill="{b}"/>'
        '<path d="M150 236l-14 82M250 236l14 82M172 236l-4 66M228 236l4 66" stroke="{c}"'
        ' stroke-width="11" stroke-linecap="round"/>'
        '<path d="M176 130v62M200 126v66M224 130v62" stroke="{d}" stroke-width="7"'
        ' stroke-linecap="round" opacity=".7"/>'
    ),
    "armchair": (
        '<path d="M132 230v-66q0-50 68-50t68 50v66z" fill="{a}"/>'
        '<path d="M96 212q0-24 24-24t24 24v26h112v-26q0-24 24-24t24 24v74q0 14-14 14H110q-14 0-14-14z"'
        ' fill="{b}"/><rect x="140" y="224" width="120" height="36" rx="16" fill="{d}"/>'
        '<path d="M124 300v20M276 300v20" stroke="{c}" stroke-width="13" stroke-linecap="round"/>'
    ),
    "table": (
        '<rect x="76" y="188" width="248" height="24" rx="10" fill="{a}"/>'
        '<path d="M106 212l-14 106M294 212l14 106" stroke="{c}" stroke-width="14"'
        ' stroke-linecap="round"/><rect x="130" y="212" width="140" height="24" fill="{b}"/>'
        '<path d="M232 188v-34q0-10 14-10t14 10v34z" fill="{d}"/>'
        '<path d="M246 144q-34-22-26-62M246 144q30-20 34-52M246 144q-2-40 4-74" fill="none"'
        ' stroke="{b}" stroke-width="8" stroke-linecap="round"/>'
    ),
    "shelf": (
        '<rect x="104" y="96" width="192" height="224" rx="8" fill="{a}"/>'
        '<path d="M118 110h164v88H118zM118 212h164v94H118z" fill="{d}" opacity=".55"/>'
        '<path d="M130 198v-62h18v62zM150 198v-74h16v74zM168 198v-56h22v56z" fill="{b}"/>'
        '<path d="M192 198l16-66 16 4-14 62z" fill="{c}"/><circle cx="256" cy="180" r="18" fill="{c}"/>'
        '<path d="M136 306v-48h60v48z" fill="{c}"/><path d="M212 306v-70h16v70zM232 306v-58h20v58z"'
        ' fill="{b}"/>'
    ),
    "bed": (
        '<rect x="72" y="150" width="20" height="168" rx="8" fill="{c}"/>'
        '<rect x="308" y="214" width="20" height="104" rx="8" fill="{c}"/>'
        '<rect x="84" y="236" width="232" height="56" rx="12" fill="{b}"/>'
        '<rect x="100" y="196" width="84" height="46" rx="20" fill="{d}"/>'
        '<path d="M170 222q70-26 146 6v44H170z" fill="{a}"/>'
        '<path d="M186 240q60-18 120 4" stroke="{d}" stroke-width="6" fill="none" opacity=".7"/>'
    ),
    "folded": (
        '<rect x="92" y="262" width="216" height="54" rx="26" fill="{a}"/>'
        '<rect x="100" y="206" width="200" height="54" rx="26" fill="{b}"/>'
        '<rect x="110" y="152" width="180" height="52" rx="25" fill="{d}"/>'
        '<path d="M120 178h120M112 233h130M104 289h140" stroke="{c}" stroke-width="4" opacity=".5"'
        ' stroke-dasharray="2 12" stroke-linecap="round"/>'
    ),
    "cushion": (
        '<path d="M104 132q96 18 192 0-16 92 0 184-96-18-192 0 16-92 0-184z" fill="{a}"/>'
        '<path d="M132 160q68 10 136 0-8 64 0 128-68-10-136 0 8-64 0-128z" fill="none" stroke="{d}"'
        ' stroke-width="7"/><path d="M158 224h84M200 182v84" stroke="{b}" stroke-width="14"'
        ' stroke-linecap="round"/>'
    ),
    "plant": (
        '<path d="M140 226h120l-16 92h-88z" fill="{a}"/><rect x="130" y="210" width="140" height="28"'
        ' rx="10" fill="{c}"/><path d="M200 210q-86-20-80-106 76 10 80 106zM200 210q86-20 80-106-76 10-80'
        ' 106z" fill="{b}"/><path d="M200 210q-34-70 0-136 34 66 0 136z" fill="{d}"/>'
        '<path d="M200 204v-90" stroke="{c}" stroke-width="4" opacity=".5"/>'
    ),
    "can": (
        '<path d="M130 190h120v112q0 14-14 14h-92q-14 0-14-14z" fill="{a}"/>'
        '<path d="M250 280q52-18 66-104" fill="none" stroke="{a}" stroke-width="18"/>'
        '<path d="M296 176l40-14" stroke="{c}" stroke-width="16" stroke-linecap="round"/>'
        '<path d="M136 196q-52 8-44 58 6 34 40 30" fill="none" stroke="{c}" stroke-width="13"/>'
        '<rect x="122" y="180" width="136" height="18" rx="9" fill="{b}"/>'
        '<path d="M148 222v60" stroke="{d}" stroke-width="9" stroke-linecap="round" opacity=".7"/>'
    ),
    "trowel": (
        '<g transform="rotate(24 200 210)"><path d="M164 196h72v58q0 50-36 72-36-22-36-72z" fill="{a}"/>'
        '<path d="M200 196v-40" stroke="{c}" stroke-width="13"/>'
        '<rect x="182" y="72" width="36" height="92" rx="18" fill="{b}"/>'
        '<path d="M200 216v76" stroke="{d}" stroke-width="7" stroke-linecap="round" opacity=".8"/></g>'
    ),
    "book": (
        '<rect x="120" y="100" width="164" height="216" rx="12" fill="{a}"/>'
        '<rect x="120" y="100" width="30" height="216" rx="10" fill="{c}"/>'
        '<rect x="172" y="140" width="88" height="56" rx="6" fill="{d}"/>'
        '<path d="M186 160h60M186 176h40" stroke="{c}" stroke-width="5" stroke-linecap="round"/>'
        '<path d="M250 100v236l-14-16-14 16V100z" fill="{b}"/>'
    ),
    "pen": (
        '<g transform="rotate(38 200 210)"><rect x="178" y="80" width="44" height="150" rx="20"'
        ' fill="{a}"/><rect x="178" y="150" width="44" height="14" fill="{d}"/>'
        '<path d="M180 230h40l-12 74h-16z" fill="{c}"/><path d="M192 304h16l-8 34z" fill="{b}"/>'
        '<path d="M224 96v70" stroke="{b}" stroke-width="8" stroke-linecap="round"/></g>'
        '<path d="M70 322q50-22 92-8" fill="none" stroke="{c}" stroke-width="6" stroke-linecap="round"/>'
    ),
    "headphones": (
        '<path d="M104 246v-30a96 96 0 0 1 192 0v30" fill="none" stroke="{c}" stroke-width="18"'
        ' stroke-linecap="round"/><rect x="84" y="220" width="52" height="92" rx="24" fill="{a}"/>'
        '<rect x="264" y="220" width="52" height="92" rx="24" fill="{a}"/>'
        '<rect x="126" y="232" width="22" height="68" rx="11" fill="{b}"/>'
        '<rect x="252" y="232" width="22" height="68" rx="11" fill="{b}"/>'
        '<path d="M132 168q30-46 68-46" fill="none" stroke="{d}" stroke-width="7"'
        ' stroke-linecap="round"/>'
    ),
    "speaker": (
        '<rect x="126" y="92" width="148" height="228" rx="18" fill="{a}"/>'
        '<circle cx="200" cy="238" r="56" fill="{c}"/><circle cx="200" cy="238" r="34" fill="{b}"/>'
        '<circle cx="200" cy="238" r="14" fill="{d}"/><circle cx="200" cy="140" r="28" fill="{c}"/>'
        '<circle cx="200" cy="140" r="12" fill="{d}"/>'
    ),
    "record": (
        '<rect x="76" y="196" width="248" height="120" rx="14" fill="{a}"/>'
        '<ellipse cx="184" cy="236" rx="88" ry="46" fill="{c}"/>'
        '<ellipse cx="184" cy="236" rx="58" ry="30" fill="none" stroke="{d}" stroke-width="2"'
        ' opacity=".5"/><ellipse cx="184" cy="236" rx="26" ry="14" fill="{b}"/>'
        '<path d="M296 212v44l-56 14" fill="none" stroke="{d}" stroke-width="8" stroke-linecap="round"'
        ' stroke-linejoin="round"/><circle cx="296" cy="212" r="12" fill="{b}"/>'
    ),
    "radio": (
        '<path d="M140 160L250 90" stroke="{c}" stroke-width="8" stroke-linecap="round"/>'
        '<rect x="84" y="160" width="232" height="156" rx="26" fill="{a}"/>'
        '<circle cx="156" cy="240" r="48" fill="{b}"/>'
        '<path d="M126 222h60M118 240h76M126 258h60" stroke="{c}" stroke-width="5"/>'
        '<rect x="224" y="194" width="70" height="34" rx="8" fill="{d}"/>'
        '<circle cx="240" cy="268" r="14" fill="{c}"/><circle cx="280" cy="268" r="14" fill="{c}"/>'
    ),
    "backpack": (
        '<path d="M166 112q0-30 34-30t34 30" fill="none" stroke="{c}" stroke-width="12"/>'
        '<path d="M122 176q0-66 78-66t78 66v116q0 26-26 26H148q-26 0-26-26z" fill="{a}"/>'
        '<rect x="146" y="216" width="108" height="84" rx="18" fill="{b}"/>'
        '<path d="M146 246h108" stroke="{c}" stroke-width="6"/>'
        '<rect x="150" y="142" width="100" height="44" rx="16" fill="{d}" opacity=".8"/>'
        '<rect x="190" y="240" width="20" height="26" rx="6" fill="{d}"/>'
    ),
    "tent": (
        '<path d="M200 110L66 318h268z" fill="{a}"/><path d="M200 110l52 208H148z" fill="{b}"/>'
        '<path d="M200 150l24 168h-48z" fill="{c}"/><path d="M200 110v-26l26 10-26 10" fill="{d}"/>'
        '<path d="M66 318l-20 6M334 318l20 6" stroke="{c}" stroke-width="6" stroke-linecap="round"/>'
    ),
    "bottle": (
        '<rect x="176" y="84" width="48" height="40" rx="8" fill="{c}"/>'
        '<path d="M182 124h36v22q34 12 34 52v96q0 24-24 24h-56q-24 0-24-24v-96q0-40 34-52z" fill="{a}"/>'
        '<rect x="148" y="214" width="104" height="56" fill="{b}"/>'
        '<path d="M166 190v110" stroke="{d}" stroke-width="9" stroke-linecap="round" opacity=".7"/>'
    ),
    "jacket": (
        '<path d="M152 108l48 30 48-30 60 36 18 116-36 8-12-70v120H122V198l-12 70-36-8 18-116z"'
        ' fill="{a}"/><path d="M152 108l48 30 48-30q-8-24-48-24t-48 24z" fill="{b}"/>'
        '<path d="M200 138v180" stroke="{c}" stroke-width="6"/>'
        '<path d="M140 250h38M222 250h38" stroke="{d}" stroke-width="7" stroke-linecap="round"/>'
    ),
    "bike": (
        '<circle cx="118" cy="256" r="60" fill="none" stroke="{c}" stroke-width="10"/>'
        '<circle cx="282" cy="256" r="60" fill="none" stroke="{c}" stroke-width="10"/>'
        '<path d="M118 256l46-92h84l34 92M164 164l38 92h-84M202 256l46-92" fill="none" stroke="{a}"'
        ' stroke-width="11" stroke-linejoin="round"/>'
        '<path d="M146 150h40" stroke="{b}" stroke-width="13" stroke-linecap="round"/>'
        '<path d="M248 164l-8-34h34" fill="none" stroke="{b}" stroke-width="10" stroke-linecap="round"'
        ' stroke-linejoin="round"/><circle cx="202" cy="256" r="13" fill="{d}"/>'
    ),
    "helmet": (
        '<path d="M80 250q0-126 126-126 114 0 118 104l-22 22z" fill="{a}"/>'
        '<path d="M128 236q10-76 76-88M176 240q14-60 66-78M236 244q14-38 50-52" fill="none" stroke="{d}"'
        ' stroke-width="11" stroke-linecap="round"/><path d="M76 246h232l-12 24H92z" fill="{b}"/>'
        '<path d="M130 270l40 48 34-48" fill="none" stroke="{c}" stroke-width="9"'
        ' stroke-linejoin="round"/>'
    ),
    "blocks": (
        '<rect x="88" y="232" width="86" height="86" rx="8" fill="{a}"/>'
        '<rect x="184" y="232" width="86" height="86" rx="8" fill="{b}"/>'
        '<path d="M180 138l54 86H126z" fill="{c}"/><circle cx="304" cy="286" r="32" fill="{d}"/>'
        '<path d="M116 290l15-34 15 34M120 280h22" stroke="{d}" stroke-width="6" fill="none"'
        ' stroke-linecap="round"/><circle cx="227" cy="275" r="18" fill="{d}"/>'
    ),
    "game": (
        '<rect x="86" y="112" width="206" height="206" rx="12" fill="{a}"/>'
        '<path d="M98 124h48v48H98zM194 124h48v48h-48zM146 172h48v48h-48zM242 172h40v48h-40z'
        'M98 220h48v48H98zM194 220h48v48h-48z" fill="{d}" opacity=".8"/>'
        '<path d="M262 318q-4-40 20-56-14-12-14-26a28 28 0 0 1 56 0q0 14-14 26 24 16 20 56z" fill="{c}"/>'
        '<rect x="92" y="262" width="52" height="52" rx="10" fill="{b}"/>'
        '<circle cx="108" cy="278" r="5" fill="{d}"/><circle cx="128" cy="298" r="5" fill="{d}"/>'
    ),
    "soap": (
        '<rect x="100" y="232" width="200" height="84" rx="36" fill="{a}"/>'
        '<rect x="130" y="252" width="140" height="44" rx="20" fill="none" stroke="{d}"'
        ' stroke-width="5"/><circle cx="142" cy="198" r="26" fill="{d}" opacity=".9"/>'
        '<circle cx="196" cy="164" r="34" fill="{b}" opacity=".75"/>'
        '<circle cx="250" cy="192" r="20" fill="{d}" opacity=".9"/>'
        '<circle cx="240" cy="122" r="14" fill="{c}" opacity=".6"/>'
    ),
    "flask": (
        '<rect x="180" y="76" width="40" height="34" rx="6" fill="{c}"/>'
        '<path d="M170 110h60v30q26 12 26 44v112q0 22-22 22h-68q-22 0-22-22V184q0-32 26-44z"'
        ' fill="{a}"/><rect x="160" y="206" width="80" height="74" rx="6" fill="{d}"/>'
        '<path d="M200 222q20 22 0 44-20-22 0-44z" fill="{b}"/>'
        '<path d="M186 78q14-34 44-28" fill="none" stroke="{c}" stroke-width="8"'
        ' stroke-linecap="round"/>'
    ),
}

OF_CATEGORY: Final = {
    "kitchen": "pot",
    "coffee-tea": "cup",
    "lighting": "lamp",
    "furniture": "chair",
    "bed-linen": "folded",
    "garden": "plant",
    "paper-pens": "book",
    "sound": "speaker",
    "outdoor": "backpack",
    "cycling": "bike",
    "toys-games": "blocks",
    "bath-care": "flask",
}

OF_WORD: Final = {
    "armchair": "armchair", "bed": "bed", "sofa": "armchair", "stool": "chair", "bench": "table",
    "desk lamp": "lamp", "table lamp": "lamp", "floor lamp": "lamp", "bedside light": "lamp",
    "pendant": "pendant", "ceiling": "pendant", "lantern": "candle", "candle": "candle",
    "table": "table", "desk": "table", "sideboard": "shelf", "shelf": "shelf", "bookshelf": "shelf",
    "bowl": "bowl", "colander": "bowl", "board": "board", "knife": "board", "jar": "jar",
    "caddy": "jar", "mill": "jar", "scale": "jar", "bin": "jar", "kettle": "kettle",
    "teapot": "kettle", "moka": "kettle", "carafe": "bottle", "press": "bottle", "bottle": "bottle",
    "cushion": "cushion", "pillow": "cushion", "can": "can", "trowel": "trowel", "fork": "trowel",
    "shears": "trowel", "pen": "pen", "pencil": "pen", "scissors": "pen", "ink": "jar",
    "headphones": "headphones", "earbuds": "headphones", "turntable": "record", "record": "record",
    "radio": "radio", "clock": "radio", "portable": "radio", "tent": "tent", "hammock": "tent",
    "jacket": "jacket", "gown": "jacket", "cook": "pot", "stove": "pot", "helmet": "helmet",
    "pannier": "backpack", "bag": "backpack", "game": "game", "chess": "game", "puzzle": "game",
    "card": "game", "doll": "blocks", "soap": "soap", "salt": "jar", "cream": "jar", "mat": "folded",
    "fire": "bowl", "speaker": "speaker", "jug": "kettle", "poles": "tent", "throw": "cushion",
}  # fmt: skip
