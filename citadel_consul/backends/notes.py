"""The records of what somebody else runs, as a backend keeps them: to be read and written without failing its caller.

What has a name is known by that, so a record that cannot be read costs the generation and nothing else, and one that
cannot be written is a warning. How something was before it was first taken in hand (``noted``) is carried from record
to record, for the day it is given back.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from citadel_consul.backends.journal import UnreadableRecord
from citadel_consul.backends.launches import Launches, LaunchRecord
from citadel_consul.backends.refusals import translated
from citadel_consul.core.model import Instance

_log = logging.getLogger(__name__)


class Notes:
    """See the module."""

    def __init__(self, launches: Launches) -> None:
        self._launches = launches
        self._noted: dict[Instance, Mapping[str, str]] = {}

    def read(self, instance: Instance) -> LaunchRecord | None:
        """The record of an instance, or ``None`` if there is none that makes sense."""
        try:
            return self._launches.read(instance)
        except UnreadableRecord as error:
            _log.warning("%s: its record cannot be read: %s", instance, error)
            return None

    def unended(self) -> tuple[Instance, ...]:
        """The instances whose end is not on record."""
        return tuple(instance for instance in self._launches.instances() if self._launches.may_run(instance))

    def write(self, instance: Instance, record: LaunchRecord) -> None:
        """Put a record in place of the one before.

        Raises:
            BackendError, BackendUnavailable: it cannot be written (at the moment).
        """
        try:
            self._launches.write(instance, replace(record, noted=self.noted(instance)))
        except OSError as error:
            raise translated(f"cannot write its record {self._launches.path(instance)}", error) from error

    def write_if_possible(self, instance: Instance, record: LaunchRecord) -> None:
        """Write what is good to have but can be found out without."""
        try:
            self._launches.write(instance, replace(record, noted=self.noted(instance)))
        except OSError as error:
            _log.warning("%s: cannot write its record %s: %s", instance, self._launches.path(instance), error)

    def forget_ended(self, instance: Instance) -> None:
        """Remove the record of an instance whose end is on record."""
        self._launches.forget_ended(instance)
        self._noted.pop(instance, None)

    def forget(self, instance: Instance) -> None:
        """Remove the record of an instance that is in nobody's hand."""
        self._launches.forget(instance)
        self._noted.pop(instance, None)

    def note(self, instance: Instance, noted: Mapping[str, str]) -> None:
        """Remember, with the next record that is written, how something was before it was taken in hand."""
        self._noted[instance] = noted

    def noted(self, instance: Instance) -> Mapping[str, str]:
        """What was noted, by this agent or an earlier one."""
        if instance not in self._noted:
            record = self.read(instance)
            self._noted[instance] = record.noted if record is not None else {}
        return self._noted[instance]
