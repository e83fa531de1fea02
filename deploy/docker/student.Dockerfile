FROM polystill-base
USER 65532:65532
ENTRYPOINT ["/opt/polystill/bin/polystill-student"]
