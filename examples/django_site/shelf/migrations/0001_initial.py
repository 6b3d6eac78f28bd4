"""Authors, books, notes and the guestbook."""

import django.core.validators
import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Author",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=100, unique=True)),
                ("name_zh", models.CharField(max_length=100, verbose_name="name in Chinese")),
            ],
            options={
                "ordering": ["name"],
            },
        ),
        migrations.CreateModel(
            name="Greeting",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=60)),
                ("text", models.CharField(max_length=280)),
                ("written_at", models.DateTimeField(auto_now_add=True)),
            ],
            options={
                "ordering": ["-written_at", "-pk"],
            },
        ),
        migrations.CreateModel(
            name="Book",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("slug", models.SlugField(unique=True)),
                ("title", models.CharField(max_length=200)),
                ("title_zh", models.CharField(max_length=200, verbose_name="title in Chinese")),
                ("year", models.PositiveSmallIntegerField()),
                ("summary", models.TextField()),
                (
                    "hue",
                    models.PositiveSmallIntegerField(
                        help_text="Degrees on the colour wheel, 0 to 359.",
                        validators=[django.core.validators.MaxValueValidator(359)],
                        verbose_name="colour of the cover",
                    ),
                ),
                (
                    "author",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="books",
                        to="shelf.author",
                    ),
                ),
            ],
            options={
                "ordering": ["year", "title"],
            },
        ),
        migrations.CreateModel(
            name="Note",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("reader", models.CharField(max_length=60)),
                ("text", models.TextField(max_length=1000)),
                ("written_at", models.DateTimeField(auto_now_add=True)),
                (
                    "book",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="notes",
                        to="shelf.book",
                    ),
                ),
            ],
            options={
                "ordering": ["-written_at", "-pk"],
            },
        ),
    ]
