"""Words that guessed passwords are made of.

Small on purpose: with twelve characters at least, the top of every leaked list is out by its
length. What is left are these words with digits, punctuation and repetition around them, and that
is checked by rule (`passwords.py`) rather than listed.
"""

from __future__ import annotations

from typing import Final

__all__ = ["WORDS"]

TEXT: Final = """
abc access account admin administrator adobe alexander amanda america andrea andrew angel animal
apple arsenal ashley asshole august austin autumn azerty babygirl banana baseball basketball
batman beautiful blink bonjour buster butterfly california cambiame changeit changeme charlie
cheese chelsea chocolate christian christmas cocacola computer consumer contrasena cookie
correcthorsebatterystaple daniel december default demo diamond dinosaur dolphin donald dragon
elephant facebook family february fender ferrari flower football forever freedom friday friends
fuckoff fuckyou gandalf george ginger giveme google guest guitar hallo hannah harley hello
hockey hottie hunter iceman iloveyou iloveyouforever instagram internet jackson january jasmine
jennifer jessica jesus johnson jordan joshua july june justin killer kitty klaster letmein
letmeinplease linkedin liverpool login london lovely loveme lucky madison maggie manager
manchester march maria marina marine martin master matrix matthew maverick melissa mercedes
merlin michael michelle microsoft minecraft monday monkey motdepasse mother mustang myspace
nicole nintendo nothing november october oracle orange pass passw passwd password passwort
pepper phoenix pokemon princess private purple qazwsx qazwsxedc qwer qwerty qwertyui qwertyuiop
qwertz rainbow ranger robert root samantha samsung saturday scooby secret security senha
september server service shadow shannon silver slayer slipknot snoopy soccer somepassword
spiderman spring starwars steelers strawberry stupid summer sunday sunshine superman superstar
support sydney taylor temp temporary test testing thecorrecthorse thomas thunder thursday tigger
trustno trustnoone tuesday twitter user username vanessa victoria wachtwoord wednesday welcome
welkom whatever william windows winter wizard wolf yamaha yankees yellow zaq zaqwsx zxcvbn
zxcvbnm
"""
WORDS: Final = frozenset(TEXT.split())
