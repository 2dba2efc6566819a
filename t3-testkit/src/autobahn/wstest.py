# `wstest` in a setting of ours. First two numbers, then wstest's own arguments:
# - the messages of a compression case, at most. By itself each sends a thousand, up to 128 KiB long, and all 216 of them take most of a
#   quarter of an hour;
# - the port that the Host header of a request to the echo server has to name, which is that of the proxy before it.
import sys

from autobahntestsuite import testee, wstest
from autobahntestsuite.case import Cases

messages, port = int(sys.argv.pop(1)), int(sys.argv.pop(1))
for case in Cases:
    if hasattr(case, "AUTOFRAGSIZE"):
        case.COUNT = min(case.COUNT, messages)

listen = testee.listenWS


def listen_behind(factory, *rest):
    factory.externalPort = port
    return listen(factory, *rest)


testee.listenWS = listen_behind
wstest.run()
