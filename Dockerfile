# docker build -t valetkey .
#
# The image holds the program, the C runtime it links, CA certificates and nothing else: no shell, no
# package manager, no sandbox (CT-01). It runs as 65532 and writes only to /data, so `--read-only
# --cap-drop ALL --security-opt no-new-privileges` with a volume there is enough. No HEALTHCHECK:
# there is nothing in the image to call it with; let the platform ask GET /readyz on the admin listener.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
# aws-lc and SQLite are compiled from C; the compiler is in the base image, make is not.
RUN apt-get update && apt-get install -y --no-install-recommends make ca-certificates && rm -rf /var/lib/apt/lists/*
COPY . .
RUN cargo build --release --locked --no-default-features --bin valetkey
# Whatever the program links goes along, at the same path, so that this also works on arm64.
RUN set -eu; mkdir -p /image/data /image/tmp /image/etc/ssl/certs /image/usr/bin; \
    cp target/release/valetkey /image/usr/bin/; \
    ldd target/release/valetkey | grep -o '/[^ ]*' | sort -u | xargs -I{} cp --dereference --parents {} /image/; \
    cp --dereference /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/; \
    echo 'valetkey:x:65532:65532::/data:/nonexistent' >/image/etc/passwd; \
    echo 'valetkey:x:65532:' >/image/etc/group; \
    echo 'hosts: files dns' >/image/etc/nsswitch.conf; \
    cp LICENSE /image/LICENSE; \
    chown 65532:65532 /image/data; chmod 0700 /image/data; chmod 1777 /image/tmp

FROM scratch
COPY --from=build /image /
USER 65532:65532
WORKDIR /data
VOLUME /data
# 8080 is public; 8081 has health and metrics and belongs on a private network.
ENV VALETKEY_BIND=0.0.0.0:8080 \
    VALETKEY_ADMIN_BIND=0.0.0.0:8081 \
    VALETKEY_DATABASE_URL=sqlite:/data/valetkey.db
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/valetkey"]
CMD ["serve"]
