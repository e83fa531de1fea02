FROM polystill-base
EXPOSE 7001
USER 65532:65532
ENTRYPOINT ["/opt/polystill/bin/polystill-teacher"]
