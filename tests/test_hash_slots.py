from streamlimit.hash_slots import SLOTS, slot_of, tags
from streamlimit.keys import Keys


def test_every_slot_has_a_tag_that_falls_into_it() -> None:
    assert [slot_of(tag) for tag in tags()] == list(range(SLOTS))


def test_the_keys_of_a_user_and_the_epoch_of_its_slot_share_the_slot() -> None:
    keys = Keys("prefix", 3, tags())

    for key in keys.all_of("alice"):
        assert slot_of(key.partition("{")[2].partition("}")[0]) == keys.slot("alice") == 749


def test_where_there_are_no_slots_all_users_share_one_epoch() -> None:
    keys = Keys()

    assert keys.epochs == ("epoch:{0}",)
    assert keys.slot("alice") == 0
