#!/bin/sh
set -e
rm -rf /var/www/html && ln -s /srv/shop/site /var/www/html
cat >/etc/supervisor/conf.d/nginx.conf <<'END'
[program:nginx]
command = nginx -g "daemon off;"
END
supervisorctl update
