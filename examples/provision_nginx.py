"""
Turn a machine into a web server with one page.

Try it on a machine of redock's::

    redock start --no-connect web
    redock provision web examples/provision_nginx.py --dry-run --diff
    redock provision web examples/provision_nginx.py
    redock provision web examples/provision_nginx.py    # changes nothing
"""

from pathlib import Path

from redock.bootstrap import Bootstrap

HERE = Path(__file__).parent
PORT = 8080


def provision(host: Bootstrap) -> None:
    host.packages("nginx-light")
    host.user("webmaster", system=True, home="/srv/site", shell="/usr/sbin/nologin")
    host.directory("/srv/site", owner="webmaster", mode=0o755)
    page = HERE / "nginx" / "index.html.j2"
    host.template("/srv/site/index.html", page, {"title": "It works"}, owner="webmaster")
    configuration = [
        host.template(
            "/etc/nginx/sites-available/site",
            HERE / "nginx" / "site.conf.j2",
            {"port": PORT, "root": "/srv/site"},
        ),
        host.symlink("/etc/nginx/sites-enabled/site", "../sites-available/site"),
        host.symlink("/etc/nginx/sites-enabled/default", state="absent"),
    ]
    if host.facts.init == "supervisor":
        # Supervisor looks after programs that stay in the foreground.
        configuration.append(
            host.file(
                "/etc/supervisor/conf.d/nginx.conf",
                "[program:nginx]\ncommand = /usr/sbin/nginx -g 'daemon off;'\n",
            )
        )
    host.service("nginx", restart_if=configuration)
