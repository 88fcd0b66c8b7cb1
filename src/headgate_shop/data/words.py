# ruff: noqa: E501 - a table, read row by row
"""The words that the catalogue is put together from: what each category sells, and how it is said.

A kind is `noun: lowest price in cents, highest, what may be said of it`. Brands and collections are
made up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["CATEGORIES", "COLLECTIONS", "Category", "Kind"]


@dataclass(frozen=True, slots=True)
class Kind:
    noun: str
    lowest: int
    highest: int
    """Usual prices, in cents."""
    says: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Category:
    slug: str
    name: str
    brands: tuple[str, ...]
    makes: tuple[str, ...]
    """Materials or manners, which stand before the noun."""
    kinds: tuple[Kind, ...]
    openings: tuple[str, ...]
    endings: tuple[str, ...]


COLLECTIONS: Final = tuple(
    """Alder Almond Aspen Atlas Aurora Bay Birch Brook Cedar Clay Cliff Clover Coast Comet Cove
    Dawn Delta Drift Dune Echo Elm Ember Fable Fern Field Fjord Flint Glade Grove Harbor Haven
    Hazel Heath Hollow Indigo Isle Juniper Kestrel Lark Ledge Linden Loft Lumen Maple Marlow
    Meadow Mist Moor Moss Nest North Oak Opal Orchard Otter Pebble Pine Plover Quarry Quill Reed
    Ridge Robin Rowan Sable Sage Shale Shore Sorrel Sparrow Spruce Stone Storm Tarn Teal Thistle
    Tide Timber Tern Vale Wander West Willow Wren Yarrow""".split()  # noqa: SIM905 - words, to be read as such
)


def _kinds(text: str) -> tuple[Kind, ...]:
    kinds = []
    for line in text.strip().splitlines():
        noun, prices, says = (part.strip() for part in line.split(":"))
        lowest, _, highest = prices.partition("-")
        facts = tuple(fact.strip() for fact in says.split(";"))
        kinds.append(Kind(noun, int(lowest) * 100, int(highest) * 100, facts))
    return tuple(kinds)


CATEGORIES: Final = (
    Category(
        "kitchen", "Kitchen",
        ("Brackenfold", "Harrowick", "Ostrell", "Tamsel"),
        ("Walnut", "Stoneware", "Enamel", "Cast Iron", "Copper", "Olive Wood", "Brushed Steel", "Glazed"),
        _kinds("""
            Chopping Board : 18-75 : a groove that catches what runs off; rubber feet that hold still; oiled by hand
            Mixing Bowl : 12-48 : a lip that pours; stacks into its smaller sisters; keeps cool for an hour
            Saucepan : 35-140 : a lid that fits two ways; for every hob, induction too; a handle that stays cool
            Casserole : 60-240 : an even heat from rim to rim; from the oven to the table; holds 4.5 litres
            Pepper Mill : 16-58 : a ceramic grinder; six steps from fine to coarse; fills without a funnel
            Bread Bin : 28-85 : a lid that serves as a board; room for two loaves; breathes through cork
            Colander : 14-46 : holes that drain but lose no grain; stands on three feet; hangs by its ring
            Baking Dish : 18-62 : goes from freezer to oven; marks for two litres; handles for thick gloves
            Chef's Knife : 39-180 : a 20 cm blade; hardened to 58 HRC; balanced at the bolster
            Utensil Set : 15-56 : spoon, turner, ladle and whisk; kind to coated pans; hangs by leather loops
            Storage Jar : 9-34 : a seal that sighs when it closes; a lid for labels; holds 1.2 litres
            Kitchen Scale : 19-65 : exact to a gram; weighs up to 10 kg; runs on two common cells
            Kettle : 34-120 : boils a litre in three minutes; a spout for slow pouring; keeps warm for an hour
            Fruit Bowl : 16-70 : air from below; no two alike; turned from one piece
        """),
        ("Made for kitchens in which something is always on the stove.", "A quiet companion for every day and for the days with guests.", "Simple to look at, and thought through to the last edge."),
        ("Wash by hand and it will outlast the kitchen.", "Goes into the dishwasher without complaint.", "Comes in a box without plastic."),
    ),
    Category(
        "coffee-tea", "Coffee & tea",
        ("Quillby", "Noonday Works", "Tidewell", "Marrow & Reed"),
        ("Porcelain", "Borosilicate", "Matte Black", "Stoneware", "Brass", "Hand Thrown", "Double Walled", "Travel"),
        _kinds("""
            Pour-Over Dripper : 14-48 : ribs that let the air out; for one cup or four; takes common filters
            French Press : 24-78 : a double sieve; holds a litre; a plunger that glides
            Coffee Grinder : 38-260 : conical burrs; forty steps; quiet enough for the early riser
            Teapot : 22-88 : a sieve as wide as the pot; a spout that does not drip; holds 1.2 litres
            Espresso Cup Set : 18-56 : four cups, four saucers; thick walls that stay warm; stacks high
            Milk Jug : 12-38 : a spout for fine lines; marks inside; holds 350 ml
            Gooseneck Kettle : 45-160 : pours a thread as thin as a pencil; holds to the degree; 0.9 litres
            Storage Caddy : 11-36 : keeps light and air away; a spoon in the lid; holds 250 g
            Cold Brew Carafe : 26-64 : steeps overnight in the door of the fridge; a fine mesh; holds 1 litre
            Moka Pot : 24-72 : six cups; a valve you can clean; for gas and induction
            Cup Warmer : 19-44 : 55 degrees, steady; switches off by itself; no wider than a book
            Tea Tasting Set : 16-62 : twelve teas from five countries; a card for each; sealed one by one
        """),
        ("For the first quarter of an hour of the day.", "Because what is brewed with care is drunk slowly.", "Everything a good cup needs, and nothing else."),
        ("Spare parts are kept for ten years.", "Comes with a small brush and a booklet of recipes.", "Tested by people who drink too much of it."),
    ),
    Category(
        "lighting", "Lighting",
        ("Lumenfeld", "Ostrell", "Vesper & Daughters", "Halden"),
        ("Brass", "Opal Glass", "Paper", "Smoked Glass", "Linen", "Powder Coated", "Rattan", "Ceramic"),
        _kinds("""
            Table Lamp : 35-190 : a dimmer in the cord; light that flatters; two metres of woven cable
            Floor Lamp : 79-420 : leans over a chair without falling; a foot of solid steel; a switch for the toes
            Pendant : 49-380 : hangs up to two metres; throws its light down and a little up; easy to wire
            Wall Light : 39-210 : turns to either side; plugs in or wires in; no glare in bed
            Desk Lamp : 45-230 : three joints that stay; 2,700 to 4,000 kelvin; charges a phone in its foot
            Bedside Light : 29-120 : wakes with a touch; a last glimmer for ten minutes; a shelf for glasses
            String Lights : 14-49 : forty small bulbs; indoors and out; a timer for the evenings
            Candle Holder : 9-56 : three heights; wax comes off with warm water; heavy enough for a draught
            Lantern : 24-95 : eight hours of light; hangs or stands; shrugs off rain
            Picture Light : 39-140 : no wire to hide; light without harm to colours; runs for weeks
            Ceiling Light : 55-260 : an even round of light; as flat as a plate; a quarter turn opens it
        """),
        ("Warm where you sit, and dark where you do not.", "Light for evenings that go on.", "Drawn by people who read late."),
        ("The bulb is included and can be exchanged.", "A+ in efficiency, and in manners.", "Made to be repaired with one screwdriver."),
    ),
    Category(
        "furniture", "Furniture",
        ("Oakmere", "Halden", "Fennoway", "Brackenfold"),
        ("Solid Oak", "Ash", "Bent Steel", "Walnut", "Wool", "Woven Cord", "Birch Ply", "Linen"),
        _kinds("""
            Side Table : 59-260 : a top that lifts off as a tray; three legs that never rock; oiled
            Armchair : 240-1150 : a seat that gives and then holds; covers that come off; feet for wooden floors
            Bookshelf : 120-780 : carries a metre of atlases; fixed to the wall by two screws; grows by the piece
            Dining Chair : 79-340 : stacks four high; a back that bends with yours; felt under the feet
            Dining Table : 320-1690 : seats six, and eight at a squeeze; edges that children survive; leaves in the box
            Bench : 99-460 : for two and their shoes; stands in the hall or the garden; a plank and two thoughts
            Stool : 45-190 : a seat, a step, a table; light enough for one hand; stacks
            Desk : 190-980 : a channel for cables; a drawer for what is not for guests; 140 by 70 cm
            Coat Stand : 69-240 : nine arms; holds wet wool; a foot that stays down
            Bed Frame : 280-1290 : slats that make no sound; a headboard to lean on; assembled in half an hour
            Sideboard : 260-1380 : doors that close themselves; cables leave at the back; four legs, level
            Wall Shelf : 29-130 : carries 15 kg; hides its screws; cut from one board
        """),
        ("Made from wood that grew within a day's drive.", "A piece that moves house with you.", "Sturdy without weight, and plain without being dull."),
        ("Assembled with one key, which is included.", "Fabric and feet can be bought again.", "Takes scratches well, and oil better."),
    ),
    Category(
        "bed-linen", "Bed & linen",
        ("Sundry & Loom", "Tamsel", "Velmoor", "Fennoway"),
        ("Washed Linen", "Organic Cotton", "Percale", "Merino", "Waffle", "Flannel", "Bamboo", "Quilted"),
        _kinds("""
            Duvet Cover : 49-210 : buttons of corozo; softer with each wash; 140 by 200 cm
            Pillow Case : 14-58 : an envelope, no zip; 80 by 80 cm; sold as a pair
            Throw : 39-180 : fringes knotted by hand; for knees and sofas; 130 by 180 cm
            Bath Towel : 16-54 : dries quickly, itself too; a loop on both sides; 70 by 140 cm
            Fitted Sheet : 24-92 : corners that stay; for mattresses up to 30 cm; 160 by 200 cm
            Cushion : 22-86 : a hidden zip; filled with what was wool; 50 by 50 cm
            Table Cloth : 34-140 : irons itself, nearly; forgives red wine; 150 by 250 cm
            Napkin Set : 18-52 : four of them; better than paper; hemmed on all sides
            Blanket : 59-260 : warm at 200 grams; smells of nothing; woven in one piece
            Curtain : 39-170 : lets the morning in, softly; loops and tape; 140 by 260 cm
            Dressing Gown : 49-160 : two deep pockets; a belt that stays tied; three sizes
        """),
        ("For the eight best hours of the day.", "Heavy in the hand and light on the skin.", "Dyed in small lots, so that colours have depth."),
        ("Washes at 40 degrees, dries on the line.", "Certified free of what nobody wants near their skin.", "Comes in a bag made from its own offcuts."),
    ),
    Category(
        "garden", "Garden",
        ("Harrowick", "Green Quarter", "Thornby", "Alderman Bros"),
        ("Ash Handled", "Terracotta", "Galvanised", "Cedar", "Forged", "Recycled", "Copper", "Folding"),
        _kinds("""
            Trowel : 9-38 : marks for the depth; holds an edge; a strap for the nail
            Watering Can : 19-78 : a rose for seedlings; balanced when full; holds 8 litres
            Planter : 14-130 : a hole and a saucer; frost does it no harm; for a herb or an olive tree
            Pruning Shears : 18-74 : cuts a finger's width; a spring that does not jump out; for either hand
            Garden Fork : 28-89 : four tines; goes into clay; rides well on the shoulder
            Bird House : 16-58 : opens for cleaning; a hole for tits; untreated within
            Raised Bed : 69-290 : three boards high; no tools; keeps slugs thinking
            Hose Reel : 34-140 : 20 metres without a kink; turns on the wall; winds by itself, slowly
            Garden Chair : 49-220 : folds flat; dry in a minute; a slat for the cup
            Seed Collection : 8-29 : ten kinds for a year; says when to sow; open-pollinated
            Compost Bin : 49-160 : opens at the foot; warm in winter; holds 300 litres
            Fire Bowl : 59-320 : a lid that makes a table; ash falls through; three short legs
        """),
        ("For those who come in when it is dark.", "Made for wet mornings and full beds.", "Tools that one leaves to one's children."),
        ("Sharpen it once a year, and that is all.", "Can stay out in any weather.", "Handles are sold singly."),
    ),
    Category(
        "paper-pens", "Paper & pens",
        ("Quillby", "Marginalia", "Inkwell Lane", "Tamsel"),
        ("Dotted", "Cloth Bound", "Brass", "Recycled", "Leather", "Letterpress", "Pocket", "Lacquered"),
        _kinds("""
            Notebook : 7-34 : lies flat at any page; numbered, with an index; 160 pages of 100 g
            Fountain Pen : 22-190 : a nib that forgives; cartridge or bottle; writes after a month in a drawer
            Ballpoint Pen : 9-68 : a click one wants to hear; common refills; heavy at the tip
            Desk Pad : 15-59 : a week at a glance; kind to the mouse; sixty sheets
            Planner : 14-48 : begins in any month; a ribbon for now and one for soon; fits in a coat
            Ink Bottle : 9-32 : dries in ten seconds; washes out of cuffs; 50 ml
            Letter Set : 12-38 : twelve sheets, twelve envelopes; lined in colour; takes ink well
            Pencil Set : 8-36 : from 4H to 6B; cedar that sharpens in one curl; in a tin
            Desk Tray : 18-72 : three compartments; stacks; felt underneath
            Wrapping Paper : 5-18 : six sheets; printed on both sides; can be ironed and used again
            Scissors : 11-54 : cut to the very tip; for either hand; a leather sheath
        """),
        ("For thoughts that want to be kept.", "Paper with a little tooth, and time.", "Because a list is half the work."),
        ("Made in a small press with large windows.", "Refills are sold here, too.", "Takes up little room and much of the day."),
    ),
    Category(
        "sound", "Sound",
        ("Halden", "Aural North", "Kestrel Audio", "Lumenfeld"),
        ("Walnut", "Graphite", "Portable", "Studio", "Compact", "Woven", "Wireless", "Bamboo"),
        _kinds("""
            Headphones : 49-380 : thirty hours on a charge; pads that can be exchanged; folds into its case
            Bookshelf Speaker : 90-620 : a 13 cm driver; sold as a pair; stands close to the wall
            Turntable : 140-890 : a belt one can reach; starts without a word; with cartridge
            Portable Speaker : 39-240 : floats; twelve hours; pairs with its twin
            Earbuds : 29-190 : three sizes of tips; hears the street when you wish; five hours and twenty more
            Radio : 45-260 : five buttons for five stations; a dial to turn; plays the phone, too
            Record Crate : 35-120 : holds ninety records; on wheels; thumbs welcome
            Soundbar : 99-540 : voices one can follow; one cable; a night mode for walls like paper
            Microphone : 59-310 : one cable to the computer; hears you and not the keys; a stand of steel
            Alarm Clock : 19-88 : begins softly; no blue light; a snooze that means it
            Amplifier : 120-760 : 2 by 60 watts; four inputs and a knob; warm, but not to touch
        """),
        ("Voiced by ear, checked by measure.", "For rooms with books in them.", "Loud when it should be, and quiet when it is not needed."),
        ("Firmware for ten years, and a battery that comes out.", "Two years of warranty, five when registered.", "Cables are in the box, the long one too."),
    ),
    Category(
        "outdoor", "Outdoor",
        ("Fellgate", "Thornby", "North Traverse", "Aural North"),
        ("Ripstop", "Merino", "Ultralight", "Waxed Cotton", "Titanium", "Insulated", "Canvas", "Recycled"),
        _kinds("""
            Backpack : 55-290 : a frame that follows the back; a rain cover in the lid; 38 litres
            Tent : 140-780 : up in five minutes; stands in wind; 2.1 kg with pegs
            Sleeping Bag : 79-460 : warm to minus five; a zip that does not bite; packs to a loaf
            Water Bottle : 14-48 : cold for a day, hot for half; a cap on a cord; 0.75 litres
            Camping Stove : 39-180 : a litre in four minutes; sits low in wind; folds into a mug
            Rain Jacket : 69-390 : taped seams; a hood for a helmet; vents under the arms
            Head Torch : 24-110 : 300 lumens; red for the night; a lock for the bag
            Hammock : 34-140 : carries two; straps kind to bark; packs into its own pocket
            Trekking Poles : 39-170 : three parts that lock; cork in the hand; 240 g each
            Cook Set : 29-150 : pot, pan and two cups; nests around the gas; a handle for both
            Picnic Blanket : 29-95 : dry underneath; room for five; rolls up with its strap
            Pocket Knife : 19-120 : a blade that locks; cork and screw; for life
        """),
        ("For weekends that begin on Thursday.", "Carried over many hills before it came here.", "Light enough to come along, strong enough to come back."),
        ("Repaired for free in our workshop.", "Proofed without fluorine.", "Weighed with everything, as it leaves the house."),
    ),
    Category(
        "cycling", "Cycling",
        ("Fellgate", "Spoke & Mercer", "Velmoor", "Thornby"),
        ("Reflective", "Waxed Canvas", "Alloy", "Leather", "Carbon", "Commuter", "Touring", "Steel"),
        _kinds("""
            Helmet : 45-210 : turns to fit; light at the back; 290 g
            Pannier : 39-190 : clicks on and off; dry in a river; 20 litres
            Bike Light Set : 24-130 : seen at 600 metres; charges in two hours; no tools
            Floor Pump : 29-110 : both valves; a gauge one can read; up to 11 bar
            Saddle : 39-210 : wears in, not out; rails of chromed steel; a cut where it matters
            Lock : 34-160 : eighteen millimetres of steel; two keys and a code; a holder for the frame
            Tool Kit : 19-95 : eighteen tools; a chain breaker; fits under the saddle
            Bottle Cage : 9-48 : holds on cobbles; 38 g; bolts included
            Mudguard Set : 24-82 : for 28 inches; stays that break away; silent
            Bell : 8-42 : heard, and forgiven; brass inside; goes on any bar
            Handlebar Bag : 34-140 : opens towards you; a window for the map; straps for the train
        """),
        ("For the way to work and the long way home.", "Made where it rains a good deal.", "Fits what you ride, whatever that is."),
        ("Spare parts down to the screw.", "Mounted in five minutes without swearing.", "Passes every test that there is, and our hill."),
    ),
    Category(
        "toys-games", "Toys & games",
        ("Hobbin", "Marginalia", "Little Quarry", "Oakmere"),
        ("Wooden", "Felt", "Painted", "Magnetic", "Giant", "Travel", "Organic Cotton", "Folding"),
        _kinds("""
            Building Blocks : 19-84 : a hundred pieces; corners that are round; come in a bag
            Puzzle : 12-48 : a thousand pieces; drawn by hand; no two alike
            Board Game : 18-72 : two to five players; explained in five minutes; an hour, and another
            Train Set : 29-140 : a bridge and a tunnel; fits other tracks; five carriages
            Rag Doll : 19-62 : can be washed; her coat has pockets; 38 cm
            Card Game : 7-26 : fits into a pocket; for two to eight; no reading
            Kite : 16-78 : flies in next to nothing; thirty metres of line; packs small
            Marble Run : 24-110 : forty-eight parts; loud in a good way; grows with its builder
            Play Kitchen : 59-240 : two hobs that click; a tap that turns; 90 cm high
            Chess Set : 24-190 : weighted and felted; the board is the box; staunton shapes
            Juggling Set : 12-44 : three balls that do not roll away; a booklet; for ten thumbs
        """),
        ("Tested by children, who were asked to be rough.", "For floors, tables and the back seat.", "Plays well with others, and alone."),
        ("Paint that can be licked.", "From three years on; grandparents too.", "Lost a piece? Write, and it comes."),
    ),
    Category(
        "bath-care", "Bath & care",
        ("Sundry & Loom", "Alderman Bros", "Green Quarter", "Tidewell"),
        ("Cedar", "Unscented", "Lavender", "Oatmeal", "Sea Salt", "Citrus", "Charcoal", "Rosemary"),
        _kinds("""
            Soap Bar : 5-16 : boiled for six weeks; lathers in hard water; 120 g
            Hand Cream : 7-28 : gone in a minute; for people who work with their hands; 75 ml
            Shampoo : 9-32 : rinses out at once; 300 ml, and a refill; kind to colour
            Bath Salt : 8-29 : turns water soft; a kilogram; twelve evenings
            Body Brush : 11-39 : bristles of sisal; a strap for the hand; hangs to dry
            Shaving Set : 29-140 : brush, razor and stand; common blades; weighted
            Bath Mat : 19-72 : dry in an hour; holds still; 50 by 80 cm
            Candle : 12-54 : burns for fifty hours; a cotton wick; the glass becomes a cup
            Face Oil : 14-68 : four drops; pressed cold; in dark glass
            Wash Bag : 16-64 : stands up; lined, and wipes clean; three pockets
            Soap Dish : 7-34 : water runs off; stays put; fits the rim
        """),
        ("Few ingredients, and each of them has a reason.", "For doors that may be locked for half an hour.", "Smells as it should, and only close by."),
        ("Made in lots so small that they have names.", "Bottles can be sent back and filled.", "Never tried on animals; on us, often."),
    ),
)  # fmt: skip
