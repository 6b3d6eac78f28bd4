"""The two forms that write to the database, and the upload form."""

from django import forms

from .models import Greeting, Note


class NoteForm(forms.ModelForm):
    """A reader's note on a book."""

    class Meta:
        model = Note
        fields = ["reader", "text"]
        labels = {"reader": "Your name · 名字", "text": "Note · 读书笔记"}
        widgets = {"text": forms.Textarea(attrs={"rows": 3})}


class GreetingForm(forms.ModelForm):
    """A line for the guestbook."""

    class Meta:
        model = Greeting
        fields = ["name", "text"]
        labels = {"name": "Your name · 名字", "text": "Greeting · 留言"}


class UploadForm(forms.Form):
    """Any one file, up to 32 MiB."""

    MAX_BYTES = 32 * 1024 * 1024

    file = forms.FileField(label="File · 文件")

    def clean_file(self) -> object:
        """Refuse what is too big to read in a demo."""
        upload = self.cleaned_data["file"]
        if upload.size > self.MAX_BYTES:
            raise forms.ValidationError("The file is over 32 MiB: choose a smaller one.")
        return upload
