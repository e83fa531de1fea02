FROM polystill-base
EXPOSE 7000 9464
USER 65532:65532
ENTRYPOINT ["/opt/polystill/bin/polystill-coordinator"]
