"""What is in flight is counted, bounded and given back."""

import contextlib

import pytest

from service.admission import Admission
from service.errors import Overloaded


def test_what_a_request_took_is_given_back_however_it_ends():
    admission = Admission(max_rows=10, max_bytes=100)
    with contextlib.suppress(KeyError), admission.ticket() as ticket:
        ticket.take_images(7)
        ticket.take_bytes(50)
        ticket.take_bytes(30)
        assert admission.in_flight == {"images": 7, "bytes": 80}
        raise KeyError
    assert admission.in_flight == {"images": 0, "bytes": 0}


def test_what_has_no_room_is_refused_and_not_counted():
    admission = Admission(max_rows=10, max_bytes=100)
    with admission.ticket() as first:
        first.take_images(7)
        with pytest.raises(Overloaded, match="7 images"), admission.ticket() as second:
            second.take_images(4)
        with admission.ticket() as third:
            third.take_images(3)
        assert admission.in_flight["images"] == 7
