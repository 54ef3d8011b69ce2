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


def test_once_one_found_no_room_others_are_not_even_read_until_it_would_have_some():
    admission = Admission(max_rows=100, max_bytes=100)
    with admission.ticket() as first, admission.ticket() as second:
        first.take_images(80)
        second.expect(0)  # nobody was turned away: read it and see
        with pytest.raises(Overloaded, match="80 images"):
            second.take_images(21)
        with pytest.raises(Overloaded, match="80 images"), admission.ticket() as third:
            third.expect(0)
    with admission.ticket() as first:
        first.take_images(79)
        first.expect(0)  # one of 21 would have room again
        first.take_images(21)


def test_the_largest_requests_that_find_no_room_do_not_keep_everybody_out():
    admission = Admission(max_rows=100, max_bytes=100)
    with admission.ticket() as first:
        first.take_images(75)
        with pytest.raises(Overloaded):
            first.take_images(100)
        first.expect(0)  # a quarter is free: no more is kept for it


def test_a_body_announced_larger_than_what_is_left_is_not_read():
    admission = Admission(max_rows=10, max_bytes=100)
    with admission.ticket() as first:
        first.take_bytes(60)
        first.expect(40)
        with pytest.raises(Overloaded, match="60 bytes"):
            first.expect(41)
