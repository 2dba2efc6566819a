# Only the static program, which contains the public root certificates. To trust others, mount a store
# and set SSL_CERT_FILE.
#   cargo xtask build --release
#   docker build -f deploy/oci/t3-probe.Dockerfile -t t3-probe target/x86_64-unknown-linux-musl/dist
FROM scratch
COPY t3-probe /t3-probe
USER 65532:65532
EXPOSE 9108
ENTRYPOINT ["/t3-probe"]
CMD ["run"]
