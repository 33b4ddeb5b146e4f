"""
Configuration of two machines: an application, and a proxy in front of it.

It is written for any two hosts called "app" and "proxy" that reach each other by these names; see
``test_two_tiers.py`` for a test of it.
"""

from redock.bootstrap import Bootstrap

APP_PORT = 8080
PROXY_PORT = 80

PROGRAM = """\
[program:nginx]
command = /usr/sbin/nginx -g 'daemon off;'
"""

APP = f"""\
server {{
    listen {APP_PORT};
    root /srv/app;
    add_header X-Served-By $hostname;
}}
"""

PROXY = f"""\
server {{
    listen {PROXY_PORT};
    location / {{
        proxy_pass http://app:{APP_PORT};
        proxy_connect_timeout 1s;
    }}
}}
"""


def provision(host: Bootstrap, page: str = "Hello from behind the proxy!\n") -> None:
    """Bring a host into the state that its name asks for."""
    is_app = host.facts.hostname == "app"
    host.packages("nginx-light")
    configuration = [
        host.file("/etc/nginx/sites-available/site", APP if is_app else PROXY),
        host.symlink("/etc/nginx/sites-enabled/site", "../sites-available/site"),
        host.symlink("/etc/nginx/sites-enabled/default", state="absent"),
        host.file("/etc/supervisor/conf.d/nginx.conf", PROGRAM),
    ]
    if is_app:
        host.user("www", system=True, home="/srv/app", shell="/usr/sbin/nologin")
        host.directory("/srv/app", owner="www", mode=0o755)
        host.file("/srv/app/index.html", page, owner="www")
    host.service("nginx", restart_if=configuration)
