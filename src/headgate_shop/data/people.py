"""Who buys: customers of the past, and the few accounts that can sign in.

Customers have an id, a name and an address, as their orders need, and no account. The accounts'
passwords are no secret: `headgate demo` prints them.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["ACCOUNTS", "Account", "Address", "Customer", "customers"]


@dataclass(frozen=True, slots=True)
class Address:
    name: str
    street: str
    city: str
    postcode: str
    country: str
    """Two letters, ISO 3166."""


@dataclass(frozen=True, slots=True)
class Customer:
    id: str
    name: str
    email: str
    phone: str
    address: Address
    weight: float
    """How often this one buys, with 1.0 as the average."""


@dataclass(frozen=True, slots=True)
class Account:
    id: str
    email: str
    password: str
    name: str
    roles: tuple[str, ...]
    phone: str
    address: Address


ACCOUNTS: Final = (
    Account(
        id="a00001",
        email="ada@shop.test",
        password="violet kettle at noon",  # noqa: S106 - printed by the demo
        name="Ada Winter",
        roles=(),
        phone="+49 30 5550 1185",
        address=Address("Ada Winter", "Lindenufer 12", "Berlin", "10557", "DE"),
    ),
    Account(
        id="a00002",
        email="admin@shop.test",
        password="eleven brass ladders",  # noqa: S106 - printed by the demo
        name="Robin Admin",
        roles=("admin",),
        phone="+49 30 5550 1100",
        address=Address("Headgate Shop", "Hafenstrasse 1", "Hamburg", "20457", "DE"),
    ),
    Account(
        id="a00003",
        email="noor@shop.test",
        password="seven quiet harbours",  # noqa: S106 - printed by the demo
        name="Noor Haddad",
        roles=(),
        phone="+31 20 555 0142",
        address=Address("Noor Haddad", "Molenkade 7", "Utrecht", "3511 AB", "NL"),
    ),
)
"""A customer, an administrator, and a second customer to see that each sees only their own."""

FIRST: Final = tuple(
    """Alma Amir Anouk Arne Aylin Beata Bela Bruno Carla Cem Chiara Clara Dario Defne Diego Dora
    Edda Elias Elif Emil Enzo Esra Eva Farid Femke Finn Frida Gaia Greta Hana Hugo Ida Ilja Ines
    Iris Ivo Jana Jasper Jonas Joris Julie Kaan Karim Katja Kemal Lara Lea Leif Lena Levi Lina
    Linus Livia Lotte Luca Luka Maja Malik Mara Marek Marlene Mats Mila Milan Mira Nadia Nele
    Nico Nils Noemi Nora Ola Olga Oskar Paolo Pavel Petra Pia Quirin Rania Ravi Renata Rosa Ruben
    Salma Samir Sanne Selma Signe Silas Sofie Stella Sven Tamara Tariq Theo Tilda Timo Tomas Uma
    Vera Viktor Wanda Willem Yara Yusuf Zoe Zora""".split()  # noqa: SIM905 - names, to be read as such
)
LAST: Final = tuple(
    """Aalto Abadi Albrecht Amsel Andersen Arslan Baum Becker Bergman Bianchi Bosman Brandt Bruun
    Castel Celik Conti Costa Dahl Demir Dubois Eder Eklund Engel Falk Fischer Fontana
    Forster Gallo Garnier Haas Halm Hansen Hartog Hoekstra Holm Horvat Ivanova Jansen Jensen Kaya
    Keller Kern Klein Koch Kovac Kramer Kruse Lange Larsen Laurent Lehmann Leroy Lindgren Lorenz
    Marchetti Marin Meier Mertens Moreau Mulder Navarro Neumann Nielsen Novak Nowak Olsen Ortega
    Ott Ozdemir Pauli Petit Petrov Popescu Quint Reuter Ricci Richter Romano Roth Sahin Salo
    Santos Sauer Schmitt Seidel Sorensen Stein Strand Sule Thoma Toth Urban Vance Verhoeven Vidal
    Vogel Wagner Weber Wilk Winkler Wolff Yilmaz Zeman Ziegler""".split()  # noqa: SIM905 - likewise
)
STREETS: Final = {
    "DE": ("Ahornweg", "Am Anger", "Bergstrasse", "Gartenweg", "Kirchplatz", "Lindenallee"),
    "AT": ("Auweg", "Burggasse", "Feldgasse", "Muehlgasse", "Seestrasse"),
    "NL": ("Dijkstraat", "Kerkweg", "Lindelaan", "Molenpad", "Zeeweg"),
    "FR": ("Rue des Lilas", "Rue du Moulin", "Avenue des Pins", "Place du Puits"),
    "IT": ("Via dei Tigli", "Via del Mulino", "Viale delle Rose", "Piazza del Pozzo"),
    "ES": ("Calle del Olmo", "Calle Mayor", "Paseo del Prado Alto", "Plaza Nueva"),
    "DK": ("Birkevej", "Havnegade", "Lindevej", "Strandgade"),
    "PL": ("ul. Lipowa", "ul. Ogrodowa", "ul. Polna", "ul. Sosnowa"),
}
TOWNS: Final = (
    ("DE", "Berlin", "10###", 9),
    ("DE", "Hamburg", "20###", 6),
    ("DE", "Leipzig", "04###", 4),
    ("DE", "Freiburg", "79###", 3),
    ("AT", "Wien", "10#0", 5),
    ("AT", "Graz", "80##", 2),
    ("NL", "Utrecht", "35## KB", 3),
    ("NL", "Groningen", "97## TR", 2),
    ("FR", "Lyon", "6900#", 3),
    ("FR", "Nantes", "440##", 2),
    ("IT", "Torino", "101##", 3),
    ("IT", "Bologna", "401##", 2),
    ("ES", "Valencia", "460##", 2),
    ("DK", "Aarhus", "80##", 2),
    ("PL", "Gdansk", "80-###", 2),
)
CODES: Final = {
    "DE": "+49",
    "AT": "+43",
    "NL": "+31",
    "FR": "+33",
    "IT": "+39",
    "ES": "+34",
    "DK": "+45",
    "PL": "+48",
}


def customers(count: int, seed: int = 1) -> list[Customer]:
    """`count` customers, `c-00001` and on; the first ones do not depend on how many follow."""
    rng = random.Random(f"people {seed}")
    shares = [town[3] for town in TOWNS]
    return [_customer(number, rng, shares) for number in range(1, count + 1)]


def _customer(number: int, rng: random.Random, shares: Sequence[int]) -> Customer:
    first, last = rng.choice(FIRST), rng.choice(LAST)
    name = f"{first} {last}"
    country, city, pattern, _ = rng.choices(TOWNS, shares)[0]
    house = rng.randint(1, 140)
    street = rng.choice(STREETS[country])
    line = f"{house} {street}" if country == "FR" else f"{street} {house}"
    return Customer(
        id=f"c-{number:05d}",
        name=name,
        email=f"{_plain(first)}.{_plain(last)}{number}@customers.test",
        phone=f"{CODES[country]} {rng.randint(20, 89)} 555 {rng.randint(0, 9999):04d}",
        address=Address(name, line, city, _digits(pattern, rng), country),
        weight=round(rng.lognormvariate(-0.5, 1.0), 4),
    )


def _digits(pattern: str, rng: random.Random) -> str:
    return "".join(str(rng.randint(1, 9)) if sign == "#" else sign for sign in pattern)


def _plain(name: str) -> str:
    folded = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return "".join(sign for sign in folded.lower() if sign.isalnum())
