// Listeners that a service manager has opened and passes on (socket activation, sd_listen_fds(3)).

public import Addressing

/// Reads LISTEN_PID and LISTEN_FDS.
public enum PassedListeners {
    /// The descriptor of the first; the others follow.
    public static let first: Int32 = 3

    /// How many listeners were passed to the process `pid`. None when the variables are meant for another process: they
    /// are inherited by whoever we start.
    public static func count(environment: [String: String], pid: Int32) throws(OptionError) -> Int {
        guard let owner = environment["LISTEN_PID"], Int32(owner) == pid, let text = environment["LISTEN_FDS"]
        else { return 0 }
        guard let count = Int(text), (0...Limits.listenersMax).contains(count) else {
            throw OptionError(
                option: "LISTEN_FDS", value: text, reason: "expected a whole number, 0 to \(Limits.listenersMax)")
        }
        return count
    }
}

extension Settings {
    /// Where the process `pid` listens: what was passed to it replaces the default and is added to what somebody gave.
    public func binds(environment: [String: String], pid: Int32) throws(OptionError) -> [BindAddress] {
        let count = try PassedListeners.count(environment: environment, pid: pid)
        guard count > 0 else { return binds }
        let passed = (0..<Int32(count)).map { BindAddress.descriptor(PassedListeners.first + $0) }
        guard hasExplicitBinds else { return passed }
        // `-b fd://3` is one of them by another name.
        let all = binds + passed.filter { !binds.contains($0) }
        guard all.count <= Limits.listenersMax else {
            throw OptionError(
                option: "LISTEN_FDS", value: String(count),
                reason:
                    "makes \(all.count) listeners with those of \(OptionName.bind.spelled); expected at most \(Limits.listenersMax)"
            )
        }
        return all
    }
}
