// What an arbiter is started with beside its options: by whom, with which sockets, and by which command.

import Addressing
public import Config
public import Control
public import Linux

/// How this process came to be one that serves.
public struct Launch {
    /// What USR2 and `-D` start again.
    public let invocation: Invocation
    /// What another process of ours has left: the arbiter that was told USR2, or the tproxy of the shell under `-D`.
    public let origin: SuccessionInheritance?
    /// The addresses of the sockets that a service manager has opened.
    let activated: [BindAddress]

    public init(
        _ invocation: Invocation, startedBy origin: SuccessionInheritance?, environment: [String: String]
    ) throws(OptionError) {
        self.invocation = invocation
        self.origin = origin
        if let origin {
            activated = origin.succession.listeners.filter(\.isActivated).map(\.bind)
        } else {
            let count = try PassedListeners.count(environment: environment, pid: Process.pid)
            activated = (0..<Int32(count)).map { .descriptor(PassedListeners.first + $0) }
        }
    }

    /// Where to listen: what a service manager has opened stands in for the default and is added to what was given.
    func binds(_ settings: Settings) -> [BindAddress] {
        guard !activated.isEmpty else { return settings.binds }
        guard settings.hasExplicitBinds else { return activated }
        return settings.binds + activated.filter { !settings.binds.contains($0) }
    }
}
