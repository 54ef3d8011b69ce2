"""What is in flight is counted, bounded and given back."""

import contextlib

import pytest

from service.errors import Overloaded, TooLarge
from service.transports.admission import OVERLOAD_SECONDS, READING_SECONDS, Admission


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
    with admission.ticket() as first, admission.ticket() as second:
        first.take_images(79)
        second.expect(0)  # one of 21 would have room again
        second.take_images(21)


def test_no_more_are_read_at_a_time_than_would_have_room():
    now = 0.0
    admission = Admission(max_rows=100, max_bytes=100, clock=lambda: now)
    with admission.ticket() as first, admission.ticket() as second, admission.ticket() as third:
        first.take_images(75)
        with pytest.raises(Overloaded):
            second.take_images(26)
        second.expect(0)  # is being read: room for 25 is kept
        with pytest.raises(Overloaded, match="100 images"):
            third.expect(0)
        now = READING_SECONDS / 2
        with pytest.raises(Overloaded):
            third.expect(0)
        second.take_images(0)  # it was smaller
        third.expect(0)
        with pytest.raises(Overloaded):
            second.expect(0)
        now += READING_SECONDS  # a slow sender's room is not kept
        second.expect(0)
        third.take_images(25)  # it comes into nobody's room


def test_what_is_being_read_keeps_no_room_once_it_has_ended():
    admission = Admission(max_rows=100, max_bytes=100)
    with admission.ticket() as first:
        first.take_images(75)
        with pytest.raises(Overloaded), admission.ticket() as second:
            second.take_images(26)
        with admission.ticket() as second:
            second.expect(0)
        first.expect(0)


def test_where_two_like_the_last_refused_have_room_and_none_was_refused_of_late_all_are_read():
    now = 0.0
    admission = Admission(max_rows=100, max_bytes=100, clock=lambda: now)
    with admission.ticket() as first, contextlib.ExitStack() as others:
        first.take_images(60)
        with pytest.raises(Overloaded):
            first.take_images(41)
        first.take_images(15)
        others.enter_context(admission.ticket()).expect(0)  # one is read, and room kept for it
        with pytest.raises(Overloaded):
            others.enter_context(admission.ticket()).expect(0)
    with admission.ticket() as first, contextlib.ExitStack() as others:
        first.take_images(50)
        for _ in range(2):
            others.enter_context(admission.ticket()).expect(0)
        now = OVERLOAD_SECONDS / 2
        with pytest.raises(Overloaded):
            others.enter_context(admission.ticket()).expect(0)
    with admission.ticket() as first, contextlib.ExitStack() as others:
        first.take_images(50)
        now += 2 * OVERLOAD_SECONDS
        for _ in range(5):
            others.enter_context(admission.ticket()).expect(0)


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


def test_work_that_does_not_fit_beside_other_work_is_refused_until_that_is_done():
    admission = Admission(max_rows=10, max_bytes=100)
    with admission.ticket() as first, admission.ticket() as second:
        first.take_bytes(10)
        first.take_work(60)
        second.take_bytes(10)
        with pytest.raises(Overloaded, match="no room for 40 more"):
            second.take_work(40)
        first.keep(20)
        second.take_work(40)
    assert admission.in_flight == {"images": 0, "bytes": 0}


def test_work_that_would_never_fit_is_not_asked_to_come_again():
    admission = Admission(max_rows=10, max_bytes=100)
    with admission.ticket() as ticket:
        ticket.take_bytes(10)
        with pytest.raises(TooLarge, match="about 91 bytes beside its body of 10"):
            ticket.take_work(91)
        ticket.take_work(90)  # alone, the largest one is let in


def test_once_the_work_is_done_only_the_answer_is_counted():
    admission = Admission(max_rows=10, max_bytes=100)
    with admission.ticket() as ticket:
        ticket.take_images(7)
        ticket.take_bytes(50)
        ticket.take_work(30)
        ticket.keep(30)
        assert admission.in_flight == {"images": 0, "bytes": 30}
        ticket.keep(40)  # never more than was taken
        assert admission.in_flight == {"images": 0, "bytes": 30}
    assert admission.in_flight == {"images": 0, "bytes": 0}


def test_a_stream_keeps_room_for_a_chunk_beside_what_its_chunks_leave_behind():
    admission = Admission(max_rows=10, max_bytes=100)
    with admission.ticket() as ticket:
        for _ in range(3):
            ticket.widen(2, 40)
            ticket.take_work(5)
        assert admission.in_flight == {"images": 2, "bytes": 55}
