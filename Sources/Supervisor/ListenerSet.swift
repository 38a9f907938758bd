// The arbiter's listeners: bound once, kept until it stops. Clients wait in their queues whatever workers do.

public import Addressing
import Config
public import Linux
public import SystemPackage

/// Why an address cannot be listened on.
public enum ListenError: Error, Equatable, CustomStringConvertible {
    case system(BindAddress, Errno)
    case lookup(BindAddress, NameLookup.Failure)
    /// Another process answers at the Unix socket's path.
    case answered(BindAddress)
    /// What is at the path is no socket, and not ours to remove.
    case notASocket(BindAddress)
    /// The inherited descriptor is something else.
    case notAListener(BindAddress)

    public var description: String {
        switch self {
        case .system(let bind, let error): "cannot listen on \(bind): \(error)"
        case .lookup(let bind, let failure): "cannot listen on \(bind): the name has no address (\(failure))"
        case .answered(let bind): "cannot listen on \(bind): another process answers there"
        case .notASocket(let bind): "cannot listen on \(bind): there is a file that is no socket"
        case .notAListener(let bind): "cannot listen on \(bind): the descriptor is no listening stream socket"
        }
    }

    /// Whether whoever holds the address may be about to let go of it.
    var isInUse: Bool {
        switch self {
        case .system(_, .addressInUse), .answered: true
        case .system, .lookup, .notASocket, .notAListener: false
        }
    }
}

/// One bound socket.
public final class Listener {
    /// What it was bound by.
    public let bind: BindAddress
    /// What it is bound to: with the port that the kernel chose.
    public let address: String
    public let descriptor: Descriptor
    /// The Unix socket's file that tproxy has made.
    public let file: FileIdentity?
    /// A service manager opened it: a successor listens on it whatever its options say.
    public let isActivated: Bool

    /// Binds one address and listens on it, or takes over an inherited socket.
    public convenience init(_ bind: BindAddress, isActivated: Bool = false, backlog: Int) throws(ListenError) {
        try self.init(bind, try Self.open(bind), file: nil, isActivated: isActivated, backlog: backlog)
    }

    /// Takes over what another arbiter has passed on.
    convenience init(
        _ bind: BindAddress, passedOn socket: Int32, file: FileIdentity?, isActivated: Bool, backlog: Int
    ) throws(ListenError) {
        let descriptor = try Self.inherited(socket, bind)
        try self.init(bind, descriptor, file: file, isActivated: isActivated, backlog: backlog)
    }

    private init(
        _ bind: BindAddress, _ descriptor: consuming Descriptor, file: FileIdentity?, isActivated: Bool, backlog: Int
    ) throws(ListenError) {
        let raw = descriptor.raw
        if case .descriptor = bind {
        } else {
            // Also when it listens already: the options may have changed.
            do throws(Errno) {
                try Socket.listen(descriptor, backlog: Int32(clamping: backlog))
            } catch {
                throw .system(bind, error)
            }
        }
        address = try Self.system(bind) { () throws(Errno) in
            // Accepted sockets inherit both, which saves two system calls for each client.
            Socket.sendAtOnce(raw)
            Socket.keepAlive(raw)
            return try Socket.localAddress(raw).endpoint?.description ?? bind.description
        }
        self.bind = bind
        self.descriptor = descriptor
        self.isActivated = isActivated
        if case .unix(let path, _) = bind { self.file = file ?? FileIdentity(path: path) } else { self.file = nil }
    }

    /// Gives the Unix socket's file to the user that workers run as: whoever that is may connect.
    func giveFile(to owner: UserIdentity) throws(ListenError) {
        guard case .unix(let path, _) = bind else { return }
        do throws(Errno) {
            try owner.own(path)
        } catch {
            removeFile()
            throw .system(bind, error)
        }
    }

    /// Removes the Unix socket's file, if it is still the one that tproxy has made.
    func removeFile() { bind.removeFile(file) }

    private static func open(_ bind: BindAddress) throws(ListenError) -> Descriptor {
        switch bind {
        case .ipv4(let address, let port):
            return try system(bind) { () throws(Errno) in try bound(to: .ipv4(address, port: port)) }
        case .ipv6(let address, let port):
            return try system(bind) { () throws(Errno) in try bound(to: .ipv6(address, port: port)) }
        case .name(let name, let port): return try bound(to: addresses(of: name, port: port, bind), bind)
        case .unix(let path, let mode): return try bound(toFile: path, mode: mode, bind)
        case .descriptor(let number): return try inherited(number, bind)
        }
    }

    private static func bound(to address: SocketAddress) throws(Errno) -> Descriptor {
        let descriptor = try Socket.open(family: address.family)
        try Socket.reuseAddress(descriptor.raw)
        if case .ipv6 = address { try Socket.onlyIPv6(descriptor.raw) }
        try Socket.bind(descriptor, to: address)
        return descriptor
    }

    /// IPv4 first, as the classic had it: `localhost` is 127.0.0.1.
    private static func addresses(
        of name: String, port: UInt16, _ bind: BindAddress
    ) throws(ListenError) -> [SocketAddress] {
        do throws(NameLookup.Failure) {
            let all = try NameLookup.addresses(of: name, port: port)
            return all.filter(\.isIPv4) + all.filter { !$0.isIPv4 }
        } catch {
            throw .lookup(bind, error)
        }
    }

    /// The first of a name's addresses that can be bound; a machine's own name often has some that it lacks.
    private static func bound(to addresses: [SocketAddress], _ bind: BindAddress) throws(ListenError) -> Descriptor {
        var first: ListenError?
        for address in addresses {
            do throws(ListenError) {
                return try system(bind) { () throws(Errno) in try bound(to: address) }
            } catch {
                first = first ?? error
            }
        }
        throw first ?? .system(bind, .addressNotAvailable)
    }

    private static func bound(toFile path: String, mode: UInt16, _ bind: BindAddress) throws(ListenError) -> Descriptor
    {
        switch try system(bind, { () throws(Errno) in try UnixSocketFile.state(of: path) }) {
        case .absent: break
        case .stale: try system(bind) { () throws(Errno) in try UnixSocketFile.remove(path) }
        case .alive: throw .answered(bind)
        case .other: throw .notASocket(bind)
        }
        return try system(bind) { () throws(Errno) in
            let descriptor = try Socket.open(family: SocketAddress.unnamed.family)
            try UnixSocketFile.bind(descriptor, to: path, mode: mode)
            return descriptor
        }
    }

    private static func inherited(_ number: Int32, _ bind: BindAddress) throws(ListenError) -> Descriptor {
        do throws(Errno) {
            guard try Socket.isStreamListener(number) else { throw .invalidArgument }
        } catch {
            throw .notAListener(bind)
        }
        return try system(bind) { () throws(Errno) in
            // Workers inherit the standard three in any case, and could not close a listener there when they drain.
            let descriptor = Descriptor(owning: try Socket.aboveStandard(number))
            try Socket.setNonBlocking(descriptor.raw)
            try Socket.setCloseOnExec(descriptor.raw)
            return descriptor
        }
    }

    private static func system<Result: ~Copyable>(
        _ bind: BindAddress, _ body: () throws(Errno) -> Result
    ) throws(ListenError) -> Result {
        do throws(Errno) {
            return try body()
        } catch {
            throw .system(bind, error)
        }
    }
}

extension BindAddress {
    /// Removes the file of a Unix socket, if it is still this one.
    func removeFile(_ file: FileIdentity?) {
        guard case .unix(let path, _) = self, let file, FileIdentity(path: path) == file else { return }
        try? UnixSocketFile.remove(path)
    }
}

extension SocketAddress {
    fileprivate var isIPv4: Bool { if case .ipv4 = self { true } else { false } }
}

/// All listeners, in the order of the options.
public struct ListenerSet {
    public private(set) var listeners: [Listener] = []

    /// Binds all addresses or none. One that is in use is tried again: a tproxy that stops may hold it for a moment.
    ///
    /// `owner` gets the files of Unix sockets that are made. `passedOn` gives what another arbiter has left for an address. `pause` says the reason, waits, and returns whether
    /// to go on; nil comes back when it says no.
    public static func bind(
        _ addresses: [BindAddress], activated: Set<BindAddress> = [], backlog: Int, owner: UserIdentity? = nil,
        passedOn: (BindAddress) -> (socket: Int32, file: FileIdentity?)? = { _ in nil },
        pause: (ListenError) -> Bool
    ) throws(ListenError) -> ListenerSet? {
        var set = ListenerSet()
        // Only what we have bound ourselves is undone: the rest still belongs to whoever passed it on.
        var ours: [Listener] = []
        func undo() { for listener in ours { listener.removeFile() } }
        for address in addresses {
            for tried in 1... {
                do throws(ListenError) {
                    let isActivated = activated.contains(address)
                    if let (socket, file) = passedOn(address) {
                        set.listeners.append(
                            try Listener(
                                address, passedOn: socket, file: file, isActivated: isActivated, backlog: backlog))
                    } else {
                        let listener = try Listener(address, isActivated: isActivated, backlog: backlog)
                        if let owner { try listener.giveFile(to: owner) }
                        set.listeners.append(listener)
                        ours.append(listener)
                    }
                    break
                } catch {
                    guard error.isInUse, tried < Limits.bindTries else {
                        undo()
                        throw error
                    }
                    if pause(error) { continue }
                    undo()
                    return nil
                }
            }
        }
        return set
    }

    /// Gives up our copies; and the files of Unix sockets with them, unless another arbiter serves there: nobody is to
    /// find the way to a queue that only drains.
    public mutating func close(keepingFiles: Bool = false) {
        if !keepingFiles { for listener in listeners { listener.removeFile() } }
        listeners = []
    }
}
