"""Topics of Debian packages in sixteen languages: a parallel corpus with labels that anyone can fetch."""

TARGET_LANGUAGES = (
    "da", "it", "fr", "de", "sk", "ja", "pt_BR", "uk", "ko", "pl", "ru", "es", "cs", "pt", "zh_CN",
)  # fmt: skip
SOURCE_LANGUAGE = "en"
