"""Who may do what: one line a route. The table *is* the authorisation: the application refuses to
be made with a route that is not in it, and nothing else decides.

A rule says the least role, and where a channel is named, whether the caller must see it or manage
it. A channel that the caller may not see is answered exactly as one that is not there.
"""

from dataclasses import dataclass

from anabranch.console.people.roles import Role


@dataclass(frozen=True, slots=True)
class Rule:
    """What a route asks of its caller.

    Attributes:
        least: the least role; None: nobody need be signed in.
        sees: the path's parameter that names a channel which the caller must see.
        manages: the path's parameter that names a channel which the caller must manage.
        node: the path's parameter that names a service node, whose own key is enough.
    """

    least: Role | None = None
    sees: str | None = None
    manages: str | None = None
    node: str | None = None


ANYBODY = Rule()
"""What is answered depends on the caller: lists are filtered, secrets in the request decide."""
SECRET = Rule()
"""Whoever knows the secret in the path, body or bearer: a seat, a publisher, a node."""
VIEWER = Rule(Role.VIEWER)
PRODUCER = Rule(Role.PRODUCER)
OPERATOR = Rule(Role.OPERATOR)
ADMIN = Rule(Role.ADMIN)
SEES = Rule(sees="name")
MANAGES = Rule(Role.PRODUCER, manages="name")
NODE = Rule(Role.OPERATOR, node="name")

RULES: dict[str, Rule] = {
    # pages, and what they are made of
    "GET /": ANYBODY,
    "HEAD /": ANYBODY,
    "GET /watch/{channel}": ANYBODY,
    "HEAD /watch/{channel}": ANYBODY,
    "GET /publish": ANYBODY,
    "HEAD /publish": ANYBODY,
    "GET /login": ANYBODY,
    "HEAD /login": ANYBODY,
    "GET /account": ANYBODY,
    "HEAD /account": ANYBODY,
    "GET /people": ANYBODY,
    "HEAD /people": ANYBODY,
    "GET /services": ANYBODY,
    "HEAD /services": ANYBODY,
    "GET /studio": ANYBODY,
    "HEAD /studio": ANYBODY,
    "GET /studio/{channel}": ANYBODY,
    "HEAD /studio/{channel}": ANYBODY,
    "GET /favicon.ico": ANYBODY,
    "HEAD /favicon.ico": ANYBODY,
    "* /assets": ANYBODY,
    "GET /api/openapi.json": ANYBODY,
    "HEAD /api/openapi.json": ANYBODY,
    # people
    "POST /api/login": ANYBODY,
    "POST /api/logout": ANYBODY,
    "GET /api/me": ANYBODY,
    "PUT /api/me/password": VIEWER,
    "GET /api/accounts": ADMIN,
    "POST /api/accounts": ADMIN,
    "GET /api/accounts/{name}": ADMIN,
    "PATCH /api/accounts/{name}": ADMIN,
    "DELETE /api/accounts/{name}": ADMIN,
    "GET /api/tokens": VIEWER,
    "POST /api/tokens": VIEWER,
    "DELETE /api/tokens/{token}": VIEWER,
    # channels
    "GET /api/channels": ANYBODY,
    "POST /api/channels": PRODUCER,
    "GET /api/channels/{name}": SEES,
    "PATCH /api/channels/{name}": MANAGES,
    "DELETE /api/channels/{name}": MANAGES,
    "GET /api/channels/{name}/detail": MANAGES,
    "POST /api/channels/{name}/captions": MANAGES,
    "GET /api/channels/{name}/thumbnail.jpg": SEES,
    "GET /api/channels/{name}/viewers": MANAGES,
    "PUT /api/channels/{name}/viewers/{account}": MANAGES,
    "DELETE /api/channels/{name}/viewers/{account}": MANAGES,
    "GET /api/channels/{name}/shares": MANAGES,
    "POST /api/channels/{name}/shares": MANAGES,
    "DELETE /api/channels/{name}/shares/{share}": MANAGES,
    "GET /api/events": ANYBODY,
    "GET /api/time": ANYBODY,
    # watching and publishing
    "POST /whep/{channel}": Rule(sees="channel"),
    "POST /whep/{channel}/{seat}/change": SECRET,  # and sees the channel in the body
    "PATCH /whep/{channel}/{seat}": SECRET,
    "DELETE /whep/{channel}/{seat}": SECRET,
    "POST /whep/{channel}/{seat}/sse": SECRET,
    "GET /whep/{channel}/{seat}/sse/{stream}": SECRET,
    "DELETE /whep/{channel}/{seat}/sse/{stream}": SECRET,
    "OPTIONS /whep/{channel}": ANYBODY,
    "OPTIONS /whep/{channel}/{seat}": ANYBODY,
    "OPTIONS /whep/{channel}/{seat}/change": ANYBODY,
    "OPTIONS /whep/{channel}/{seat}/sse": ANYBODY,
    "OPTIONS /whep/{channel}/{seat}/sse/{stream}": ANYBODY,
    "POST /whip": SECRET,
    "POST /whip/{channel}": SECRET,
    "PATCH /whip/{channel}/{publisher}": SECRET,
    "DELETE /whip/{channel}/{publisher}": SECRET,
    "OPTIONS /whip": ANYBODY,
    "OPTIONS /whip/{channel}": ANYBODY,
    "OPTIONS /whip/{channel}/{publisher}": ANYBODY,
    "POST /api/seats": ANYBODY,  # who sees the channel in the body; of receivers, their own
    "GET /api/seats/{seat}.sdp": SECRET,
    "GET /api/seats/{seat}": SECRET,
    "PATCH /api/seats/{seat}": SECRET,  # and sees the channel in the body
    "DELETE /api/seats/{seat}": SECRET,
    # the site
    "GET /metrics": ANYBODY,
    "GET /api/site": OPERATOR,
    "GET /api/seats": OPERATOR,
    "GET /api/ports": OPERATOR,
    "GET /api/ingress": OPERATOR,
    "GET /api/log": OPERATOR,
    "GET /api/tree": OPERATOR,
    "GET /api/tree/statistics": OPERATOR,
    "GET /api/tree/history": OPERATOR,
    "POST /api/tree/restart": OPERATOR,
    "GET /api/nodes": OPERATOR,
    "POST /api/nodes/{name}/start": OPERATOR,
    "POST /api/nodes/{name}/drain": OPERATOR,
    "POST /api/nodes/{name}/undrain": OPERATOR,
    "POST /api/nodes/{name}/stop": OPERATOR,
    "GET /api/nodes/{name}/pipelines": OPERATOR,
    "PUT /api/nodes/{name}/pipelines/{pipeline}": OPERATOR,
    "DELETE /api/nodes/{name}/pipelines/{pipeline}": OPERATOR,
    "POST /api/nodes/{name}/pipelines/{pipeline}/play": OPERATOR,
    "POST /api/nodes/{name}/pipelines/{pipeline}/stop": OPERATOR,
    "PUT /api/nodes/{name}/pipelines/{pipeline}/outlets/{outlet}": OPERATOR,
    "POST /api/nodes/invitations": OPERATOR,
    "GET /api/nodes/invitations": OPERATOR,
    "DELETE /api/nodes/invitations/{name}": OPERATOR,
    # services
    "GET /api/services": OPERATOR,
    "DELETE /api/services/nodes/{node}/modules/{user}/{module}": OPERATOR,
    "GET /api/services/nodes/{node}/log/{user}": OPERATOR,
    "GET /api/services/users": OPERATOR,
    "PUT /api/services/users/{name}": OPERATOR,
    "DELETE /api/services/users/{name}": OPERATOR,
    "POST /soleil": SECRET,  # the TLS connection in the bodies is authenticated at its end
    # the network
    "GET /api/fabric/callbacks": OPERATOR,
    "POST /api/fabric/callbacks": OPERATOR,
    "GET /api/fabric/callbacks/{callback}": OPERATOR,
    "PUT /api/fabric/callbacks/{callback}": OPERATOR,
    "DELETE /api/fabric/callbacks/{callback}": OPERATOR,
    "GET /api/fabric/events": OPERATOR,
    "GET /api/fabric/events/stream": OPERATOR,
    "WS /api/fabric/events": ANYBODY,  # tells who it is with its first message
    "GET /api/fabric/datapaths": OPERATOR,
    "GET /api/fabric/datapaths/{name}": OPERATOR,
    "GET /api/fabric/datapaths/{name}/counters": OPERATOR,
    "GET /api/fabric/datapaths/{name}/flows": OPERATOR,
    "GET /api/fabric/datapaths/{name}/groups": OPERATOR,
    "GET /api/fabric/datapaths/{name}/meters": OPERATOR,
    "GET /api/fabric/ports": OPERATOR,
    "GET /api/fabric/links": OPERATOR,
    "PUT /api/fabric/links": OPERATOR,
    "GET /api/fabric/hosts": OPERATOR,
    "GET /api/fabric/counters": OPERATOR,
    "GET /api/fabric/service-nodes": OPERATOR,
    "PUT /api/fabric/service-nodes/{name}": NODE,
    "DELETE /api/fabric/service-nodes/{name}": NODE,
    "GET /api/fabric/service-nodes/{name}/key": OPERATOR,
    "GET /api/fabric/paths": OPERATOR,
    "POST /api/fabric/paths": OPERATOR,
    "GET /api/fabric/paths/{name}": OPERATOR,
    "PUT /api/fabric/paths/{name}": OPERATOR,
    "DELETE /api/fabric/paths/{name}": OPERATOR,
    "GET /api/fabric/intents": OPERATOR,
    "GET /api/fabric/vm-paths": OPERATOR,
    "POST /api/fabric/vm-paths": OPERATOR,
    "GET /api/fabric/vm-paths/{name}": OPERATOR,
    "DELETE /api/fabric/vm-paths/{name}": OPERATOR,
    # the same, where controllers of their own answer
    "GET /api/fabric/{path:path}": OPERATOR,
    "POST /api/fabric/{path:path}": OPERATOR,
    "PUT /api/fabric/{path:path}": OPERATOR,
    "DELETE /api/fabric/{path:path}": OPERATOR,
}
