FROM polystill-base
EXPOSE 7001 9464
USER 65532:65532
ENTRYPOINT ["/opt/polystill/bin/polystill-teacher"]
